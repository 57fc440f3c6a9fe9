package rfb

import (
	"bufio"
	"encoding/binary"
	"io"

	"consort.dev/consort/fault"
)

// Numbers of the messages that servers send.
const (
	framebufferUpdate = 0
	setColourMap      = 1
	bell              = 2
	serverCutText     = 3
	endOfContinuous   = 150
)

// Update begins a framebuffer update: that many rectangles follow, each read
// with ServerReader.Rect and CopyBody. OpenEnded means until LastRect.
type Update struct{ Rects uint16 }

// OpenEnded is the count of an update that ends with a LastRect.
const OpenEnded = 0xffff

// Rect is the head of a rectangle.
type Rect struct {
	Area     Area
	Encoding Encoding
}

// ColourMap sets entries of the colour map. Colours holds three 16-bit numbers
// for each.
type ColourMap struct {
	First   uint16
	Colours []byte
}

// Bell rings.
type Bell struct{}

// EndOfContinuous says that updates without requests have stopped, or, sent
// first, that they are spoken.
type EndOfContinuous struct{}

// ServerReader reads what a server sends after its ServerInit.
type ServerReader struct {
	R         *bufio.Reader
	TextLimit int // bytes of clipboard text; longer ones are skipped
}

// Read returns the next message: one of Update, ColourMap, Bell, Text,
// ClipboardMark, FenceMark, EndOfContinuous. Every other message is
// fault.Invalid.
func (s *ServerReader) Read() (Message, error) {
	kind, err := s.R.ReadByte()
	if err != nil {
		return nil, err
	}
	m, err := s.body(kind)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}

func (s *ServerReader) body(kind byte) (Message, error) {
	be := binary.BigEndian
	switch kind {
	case framebufferUpdate:
		b, err := take(s.R, 3)
		if err != nil {
			return nil, err
		}
		return Update{be.Uint16(b[1:])}, nil
	case setColourMap:
		b, err := take(s.R, 5)
		if err != nil {
			return nil, err
		}
		colours, err := take(s.R, 6*int(be.Uint16(b[3:]))) // at most 384 KiB
		return ColourMap{be.Uint16(b[1:]), colours}, err
	case bell:
		return Bell{}, nil
	case serverCutText:
		b, err := take(s.R, 7)
		if err != nil {
			return nil, err
		}
		return readText(s.R, be.Uint32(b[3:]), s.TextLimit, true)
	case fence:
		b, err := take(s.R, 8)
		if err != nil {
			return nil, err
		}
		return readFence(s.R, b, true)
	case endOfContinuous:
		return EndOfContinuous{}, nil
	}
	return nil, fault.Invalid.Errorf("server's message %d, which is not allowed", kind)
}

// Rect reads the head of the next rectangle of an update.
func (s *ServerReader) Rect() (Rect, error) {
	var b [12]byte
	if _, err := io.ReadFull(s.R, b[:]); err != nil {
		return Rect{}, noEOF(err)
	}
	return Rect{parseArea(b[:]), Encoding(binary.BigEndian.Uint32(b[8:]))}, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (m Update) append(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, framebufferUpdate, 0), m.Rects)
}

func (m Rect) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(m.Area.append(b), uint32(m.Encoding))
}

func (m ColourMap) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, setColourMap, 0), m.First)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Colours)/6))
	return append(b, m.Colours...)
}

func (Bell) append(b []byte) []byte { return append(b, bell) }

func (EndOfContinuous) append(b []byte) []byte { return append(b, endOfContinuous) }

// Layout is a whole update that tells the viewer the framebuffer's size, or
// what became of its request for another.
type Layout struct {
	Reason, Status uint16
	Width, Height  int
	Screens        []Screen
}

// Values of Layout.Reason and Layout.Status.
const (
	ResizedByViewer  = 1
	ResizeProhibited = 1
	ResizeInvalid    = 3
)

func (m Layout) append(b []byte) []byte {
	b = Update{1}.append(b)
	at := Area{m.Reason, m.Status, uint16(m.Width), uint16(m.Height)}
	b = Rect{at, ExtendedDesktopSize}.append(b)
	return appendScreens(append(b, byte(len(m.Screens)), 0, 0, 0), m.Screens)
}
