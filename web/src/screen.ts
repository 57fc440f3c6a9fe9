// The desktop's pixels: noVNC, wrapped. Loaded only when a desktop is opened.
import RFB from "@novnc/novnc";
import type { OpenScreen, Screen } from "./visit";

export const openScreen: OpenScreen = (target, url, protocols, on) => {
  const rfb = new RFB(target, url, { wsProtocols: protocols });
  rfb.background = "transparent";
  rfb.scaleViewport = true;
  let opened = false;
  rfb.addEventListener("connect", () => {
    opened = true;
    rfb.resizeSession = true; // a display that cannot be resized is scaled
    on.open();
  });
  rfb.addEventListener("clipboard", (e) => on.clipboard((e as CustomEvent<{ text: string }>).detail.text));
  rfb.addEventListener("securityfailure", () => on.refused());
  rfb.addEventListener("disconnect", () => on.closed(opened));

  const screen: Screen = {
    focus: () => rfb.focus({ preventScroll: true }),
    leave: () => {
      // noVNC lets go of held keys when the window loses the focus; losing it
      // to our toolbar is the same thing to the guest.
      window.dispatchEvent(new Event("blur"));
      rfb.blur();
    },
    secureAttention: () => rfb.sendCtrlAltDel(),
    key: (keysym, code) => rfb.sendKey(keysym, code),
    paste: (text) => rfb.clipboardPasteFrom(text),
    fit: (yes) => {
      rfb.scaleViewport = yes;
      rfb.clipViewport = !yes;
      rfb.dragViewport = false;
    },
    picture: () => {
      const canvas = target.querySelector("canvas");
      if (!canvas || !canvas.width) return undefined;
      const small = document.createElement("canvas");
      small.width = 480;
      small.height = Math.max(1, Math.round((480 * canvas.height) / canvas.width));
      small.getContext("2d")?.drawImage(canvas, 0, 0, small.width, small.height);
      return small.toDataURL("image/jpeg", 0.8);
    },
    close: () => rfb.disconnect(),
  };
  return screen;
};
