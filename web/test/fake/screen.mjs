// A display that speaks enough RFB (RFC 6143) for noVNC: it draws a picture
// that looks like a desktop, marks every key that arrives, and remembers all.
// Like the gateway it sends updates unasked to viewers that take them, with a
// fence after each.

const width = 1280;
const height = 800;

/** serveScreen speaks to one viewer over the websocket until either goes. */
export function serveScreen(ws, seen) {
  const picture = paint(seen.keys.length);
  let buffer = Buffer.alloc(0);
  let state = "version";
  let wanted = false;
  let dirty = true;
  let format = { r: 16, g: 8, b: 0 };
  let offered = false;
  let pushing = false;

  const push = () => {
    if ((!wanted && !pushing) || !dirty || ws.readyState !== ws.OPEN) return;
    wanted = dirty = false;
    const head = Buffer.alloc(16);
    head.writeUInt16BE(1, 2);
    head.writeUInt16BE(width, 8);
    head.writeUInt16BE(height, 10);
    ws.send(Buffer.concat([head, encode(picture, format)]));
    if (pushing) ws.send(Buffer.from([248, 0, 0, 0, 0x80, 0, 0, 1, 1, seen.pushed++ & 0xff]));
  };
  const key = (sym) => {
    mark(picture, seen.keys.length);
    seen.keys.push(sym);
    dirty = true;
    push();
  };

  // Each handler returns how many bytes it used, or 0 to wait for more.
  const messages = {
    0: (b) => {
      if (b.length < 20) return 0;
      format = { r: b[14], g: b[15], b: b[16] };
      return 20;
    },
    2: (b) => {
      if (b.length < 4 || b.length < 4 + 4 * b.readUInt16BE(2)) return 0;
      const understood = [];
      for (let i = 0; i < b.readUInt16BE(2); i++) understood.push(b.readInt32BE(4 + 4 * i));
      if (!offered && understood.includes(-312) && understood.includes(-313)) {
        offered = true;
        ws.send(Buffer.from([150]));
      }
      return 4 + 4 * understood.length;
    },
    3: (b) => {
      if (b.length < 10) return 0;
      wanted = true;
      seen.asked++;
      if (!b[1]) dirty = true;
      push();
      return 10;
    },
    4: (b) => {
      if (b.length < 8) return 0;
      if (b[1]) key(b.readUInt32BE(4));
      else seen.releases.push(b.readUInt32BE(4));
      return 8;
    },
    5: (b) => whole(b, 6),
    6: (b) => {
      if (b.length < 8) return 0;
      const n = Math.abs(b.readInt32BE(4));
      if (b.length < 8 + n) return 0;
      seen.texts.push(b.subarray(8, 8 + n).toString("latin1"));
      return 8 + n;
    },
    150: (b) => {
      if (b.length < 10) return 0;
      pushing = b[1] !== 0;
      push();
      return 10;
    },
    248: (b) => {
      if (b.length < 9 || b.length < 9 + b[8]) return 0;
      seen.fences.push(...b.subarray(9, 9 + b[8]));
      return 9 + b[8];
    },
    251: (b) => (b.length < 8 ? 0 : whole(b, 8 + 16 * b[6])),
    255: (b) => whole(b, 12),
  };

  const step = () => {
    if (state === "version") {
      if (buffer.length < 12) return 0;
      state = "security";
      ws.send(Buffer.from([1, 1]));
      return 12;
    }
    if (state === "security") {
      if (!buffer.length) return 0;
      state = "init";
      ws.send(Buffer.from([0, 0, 0, 0]));
      return 1;
    }
    if (state === "init") {
      if (!buffer.length) return 0;
      state = "messages";
      ws.send(serverInit("test card"));
      return 1;
    }
    if (!buffer.length) return 0;
    const handle = messages[buffer[0]];
    if (!handle) {
      ws.close(4000, `message ${buffer[0]}`);
      return 0;
    }
    return handle(buffer);
  };

  ws.on("message", (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (let used; (used = step()) > 0; ) buffer = buffer.subarray(used);
  });
  ws.send(Buffer.from("RFB 003.008\n"));

  return {
    /** cut sends a text that was copied in the guest. */
    cut(text) {
      const body = Buffer.from(text, "latin1");
      const head = Buffer.from([3, 0, 0, 0, 0, 0, 0, 0]);
      head.writeUInt32BE(body.length, 4);
      ws.send(Buffer.concat([head, body]));
    },
  };
}

function whole(b, n) {
  return b.length < n ? 0 : n;
}

function serverInit(name) {
  const b = Buffer.alloc(24 + name.length);
  b.writeUInt16BE(width, 0);
  b.writeUInt16BE(height, 2);
  b.set([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0], 4);
  b.writeUInt32BE(name.length, 20);
  b.write(name, 24);
  return b;
}

function encode(picture, { r, g, b }) {
  const out = Buffer.alloc(width * height * 4);
  for (let i = 0, o = 0; i < picture.length; i += 3, o += 4) {
    out.writeUInt32LE(((picture[i] << r) | (picture[i + 1] << g) | (picture[i + 2] << b)) >>> 0, o);
  }
  return out;
}

function paint(keys) {
  const p = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const t = (x / width + y / height) / 2;
      const wave = 10 * Math.sin(x / 190 + Math.sin(y / 150) * 1.6);
      dot(p, x, y, 28 + 24 * t + wave, 58 + 40 * t + wave, 84 + 46 * t + wave);
    }
  }
  box(p, 0, height - 34, width, 34, [24, 27, 33]);
  for (let i = 0; i < 4; i++) box(p, 10 + i * 44, height - 28, 36, 22, i ? [44, 49, 58] : [74, 108, 140]);
  box(p, width - 90, height - 20, 70, 6, [150, 158, 170]);
  frame(p, 90, 70, 640, 420, [18, 20, 24]);
  for (let i = 0; i < 11; i++) {
    box(p, 108, 116 + i * 26, 96, 9, [111, 191, 140]);
    box(p, 214, 116 + i * 26, 60 + ((i * 97) % 330), 9, [196, 200, 206]);
  }
  frame(p, 560, 250, 620, 440, [250, 250, 248]);
  for (let i = 0; i < 9; i++) box(p, 620, 330 + i * 34, i % 4 === 3 ? 260 : 500 - ((i * 53) % 70), 10, [120, 124, 132]);
  box(p, 620, 296, 230, 18, [44, 47, 54]);
  for (let i = 0; i < keys; i++) mark(p, i);
  return p;
}

/** mark draws the block of key n into the terminal window. */
function mark(p, n) {
  box(p, 108 + (n % 26) * 17, 410 + Math.floor(n / 26) * 22, 13, 16, [236, 190, 90]);
}

function frame(p, x, y, w, h, fill) {
  box(p, x - 1, y - 29, w + 2, h + 30, [12, 14, 17]);
  box(p, x, y - 28, w, 28, [58, 63, 73]);
  box(p, x + 12, y - 18, 120, 8, [205, 209, 216]);
  box(p, x + w - 24, y - 20, 12, 12, [196, 104, 96]);
  box(p, x, y, w, h, fill);
}

function box(p, x0, y0, w, h, [r, g, b]) {
  for (let y = y0; y < y0 + h; y++) for (let x = x0; x < x0 + w; x++) dot(p, x, y, r, g, b);
}

function dot(p, x, y, r, g, b) {
  const i = (y * width + x) * 3;
  p[i] = r;
  p[i + 1] = g;
  p[i + 2] = b;
}
