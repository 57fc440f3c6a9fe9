package rfb

import (
	"bufio"
	"encoding/binary"
	"io"

	"consort.dev/consort/fault"
)

// Numbers of the messages that viewers send.
const (
	setPixelFormat    = 0
	setEncodings      = 2
	updateRequest     = 3
	keyEvent          = 4
	pointerEvent      = 5
	clientCutText     = 6
	enableContinuous  = 150
	fence             = 248
	setDesktopSize    = 251
	vendorMessage     = 255
	vendorExtendedKey = 0
)

// SetPixelFormat asks for pixels in a format.
type SetPixelFormat struct{ Format PixelFormat }

// SetEncodings declares what the viewer understands, best first.
type SetEncodings []Encoding

// UpdateRequest asks for what has changed in an area, or for all of it.
type UpdateRequest struct {
	Incremental bool
	Area        Area
}

// Key is a key pressed or released. Code is the XT scan code where the viewer
// sent one, else 0.
type Key struct {
	Down bool
	Sym  uint32
	Code uint32
}

// Pointer is where the pointer is and which buttons are down.
type Pointer struct {
	Buttons uint8
	X, Y    uint16
}

// Text is clipboard text in the classic form, Latin-1. Longer than the reader's
// limit it is skipped, and Skipped says how long it was.
type Text struct {
	FromServer bool
	Latin1     []byte
	Skipped    int64
}

// Continuous switches updates without requests on or off for an area.
type Continuous struct {
	On   bool
	Area Area
}

// FenceMark is a fence or its answer; both sides send it.
type FenceMark struct {
	FromServer bool
	Flags      uint32
	Payload    []byte
}

// Flags of a fence. The others that a viewer may set order its handling.
const (
	FenceRequest     = 1 << 31
	FenceBlockBefore = 1 << 0
	FenceBlockAfter  = 1 << 1
)

// Resize asks for a framebuffer of another size.
type Resize struct {
	Width, Height uint16
	Screens       []Screen
}

// Screen is one screen of a layout.
type Screen struct {
	ID    uint32
	Area  Area
	Flags uint32
}

// ViewerReader reads what a viewer sends after the opening.
type ViewerReader struct {
	R         *bufio.Reader
	TextLimit int // bytes of clipboard text; longer ones are skipped
}

// Read returns the next message: one of SetPixelFormat, SetEncodings,
// UpdateRequest, Key, Pointer, Text, ClipboardMark, Continuous, FenceMark,
// Resize. Every other message is fault.Invalid.
func (v *ViewerReader) Read() (Message, error) {
	kind, err := v.R.ReadByte()
	if err != nil {
		return nil, err
	}
	m, err := v.body(kind)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}

func (v *ViewerReader) body(kind byte) (Message, error) {
	fixed := map[byte]int{
		setPixelFormat: 19, setEncodings: 3, updateRequest: 9, keyEvent: 7, pointerEvent: 5,
		clientCutText: 7, enableContinuous: 9, fence: 8, setDesktopSize: 7, vendorMessage: 11,
	}
	n, known := fixed[kind]
	if !known {
		return nil, fault.Invalid.Errorf("viewer's message %d, which is not allowed", kind)
	}
	b, err := take(v.R, n)
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	switch kind {
	case setPixelFormat:
		f, err := parsePixelFormat(b[3:])
		return SetPixelFormat{f}, err
	case setEncodings:
		return v.encodings(int(be.Uint16(b[1:])))
	case updateRequest:
		return UpdateRequest{b[0] != 0, parseArea(b[1:])}, nil
	case keyEvent:
		return Key{Down: b[0] != 0, Sym: be.Uint32(b[3:])}, nil
	case pointerEvent:
		return Pointer{b[0], be.Uint16(b[1:]), be.Uint16(b[3:])}, nil
	case clientCutText:
		return readText(v.R, be.Uint32(b[3:]), v.TextLimit, false)
	case enableContinuous:
		return Continuous{b[0] != 0, parseArea(b[1:])}, nil
	case fence:
		return readFence(v.R, b, false)
	case setDesktopSize:
		return v.resize(b)
	}
	if b[0] != vendorExtendedKey {
		return nil, fault.Invalid.Errorf("viewer's message 255/%d, which is not allowed", b[0])
	}
	return Key{Down: be.Uint16(b[1:]) != 0, Sym: be.Uint32(b[3:]), Code: be.Uint32(b[7:])}, nil
}

func (v *ViewerReader) encodings(n int) (Message, error) {
	if n > MaxEncodings {
		return nil, fault.Invalid.Errorf("%d encodings, at most %d", n, MaxEncodings)
	}
	b, err := take(v.R, 4*n)
	if err != nil {
		return nil, err
	}
	list := make(SetEncodings, n)
	for i := range list {
		list[i] = Encoding(binary.BigEndian.Uint32(b[4*i:]))
	}
	return list, nil
}

func (v *ViewerReader) resize(b []byte) (Message, error) {
	if b[5] > MaxScreens {
		return nil, fault.Invalid.Errorf("%d screens, at most %d", b[5], MaxScreens)
	}
	screens, err := readScreens(v.R, int(b[5]))
	return Resize{binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint16(b[3:]), screens}, err
}

func readScreens(r *bufio.Reader, n int) ([]Screen, error) {
	b, err := take(r, 16*n)
	if err != nil {
		return nil, err
	}
	screens := make([]Screen, n)
	for i := range screens {
		s := b[16*i:]
		screens[i] = Screen{binary.BigEndian.Uint32(s), parseArea(s[4:]), binary.BigEndian.Uint32(s[12:])}
	}
	return screens, nil
}

// readText reads classic or extended clipboard text; a negative length marks
// the extended form.
func readText(r *bufio.Reader, length uint32, limit int, fromServer bool) (Message, error) {
	if n := -int64(int32(length)); n > 0 {
		return readClipboard(r, n, limit, fromServer)
	}
	n := int64(length)
	switch {
	case n > MaxText:
		return nil, fault.Invalid.Errorf("clipboard text of %d bytes", n)
	case n > int64(limit):
		return Text{FromServer: fromServer, Skipped: n}, skip(r, n)
	}
	b, err := take(r, int(n))
	return Text{FromServer: fromServer, Latin1: b}, err
}

func readFence(r *bufio.Reader, b []byte, fromServer bool) (Message, error) {
	if b[7] > MaxFence {
		return nil, fault.Invalid.Errorf("fence of %d bytes, at most %d", b[7], MaxFence)
	}
	payload, err := take(r, int(b[7]))
	return FenceMark{fromServer, binary.BigEndian.Uint32(b[3:]), payload}, err
}

func (m SetPixelFormat) append(b []byte) []byte {
	return m.Format.append(append(b, setPixelFormat, 0, 0, 0))
}

func (m SetEncodings) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, setEncodings, 0), uint16(len(m)))
	for _, e := range m {
		b = binary.BigEndian.AppendUint32(b, uint32(e))
	}
	return b
}

func (m UpdateRequest) append(b []byte) []byte {
	return m.Area.append(append(b, updateRequest, bit(m.Incremental)))
}

func (m Key) append(b []byte) []byte {
	if m.Code == 0 {
		return binary.BigEndian.AppendUint32(append(b, keyEvent, bit(m.Down), 0, 0), m.Sym)
	}
	b = append(b, vendorMessage, vendorExtendedKey, 0, bit(m.Down))
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, m.Sym), m.Code)
}

func (m Pointer) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, pointerEvent, m.Buttons), m.X)
	return binary.BigEndian.AppendUint16(b, m.Y)
}

func (m Text) append(b []byte) []byte {
	kind := byte(clientCutText)
	if m.FromServer {
		kind = serverCutText
	}
	b = binary.BigEndian.AppendUint32(append(b, kind, 0, 0, 0), uint32(len(m.Latin1)))
	return append(b, m.Latin1...)
}

func (m Continuous) append(b []byte) []byte {
	return m.Area.append(append(b, enableContinuous, bit(m.On)))
}

func (m FenceMark) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, fence, 0, 0, 0), m.Flags)
	return append(append(b, byte(len(m.Payload))), m.Payload...)
}

func (m Resize) append(b []byte) []byte {
	b = append(b, setDesktopSize, 0)
	b = binary.BigEndian.AppendUint16(b, m.Width)
	b = binary.BigEndian.AppendUint16(b, m.Height)
	return appendScreens(append(b, byte(len(m.Screens)), 0), m.Screens)
}

func appendScreens(b []byte, screens []Screen) []byte {
	for _, s := range screens {
		b = s.Area.append(binary.BigEndian.AppendUint32(b, s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Flags)
	}
	return b
}
