package rdp

import (
	"bufio"
	"encoding/binary"
	"io"

	"consort.dev/consort/fault"
)

// The opening is one TPKT packet each way (RFC 1006) around an X.224 connection
// request and confirm, with a negotiation inside ([MS-RDPBCGR] 2.2.1.1, 2.2.1.2).
const (
	tpktVersion = 3
	tpktHead    = 4
	maxOpening  = 1024 // request and confirm; a cookie and a negotiation fit often
	x224Request = 0xe0
	x224Confirm = 0xd0
	negResponse = 2
	negLength   = 8
)

// readOpening reads one TPKT packet whose X.224 code is as wanted.
func readOpening(r *bufio.Reader, code byte) ([]byte, error) {
	head, err := r.Peek(tpktHead)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if head[0] != tpktVersion || n < tpktHead+7 || n > maxOpening {
		return nil, fault.Invalid.Errorf("opening of %d bytes, version %d", n, head[0])
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if int(b[4]) != n-tpktHead-1 || b[5]&0xf0 != code {
		return nil, fault.Invalid.Errorf("opening with X.224 code %#x and length %d of %d", b[5], b[4], n)
	}
	return b, nil
}

// negotiated reports whether the guest's confirm chooses TLS for what follows.
func negotiated(confirm []byte) bool {
	rest := confirm[tpktHead+7:]
	return len(rest) >= negLength && rest[0] == negResponse && binary.LittleEndian.Uint32(rest[4:]) != 0
}

// frame is one piece of what follows the opening. It is read without what is
// inside, but a relay that knows where pieces end passes nothing else.
type frame struct {
	size  int  // of the whole piece
	inner bool // it carries the session, not the making of it
}

const (
	tlsHead    = 5
	tlsApp     = 23
	maxTLSBody = 1<<14 + 2048 // RFC 5246, 6.2.3
)

// nextTLS peeks at a TLS record.
func nextTLS(r *bufio.Reader) (frame, error) {
	b, err := r.Peek(tlsHead)
	if err != nil {
		return frame{}, err
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	if b[0] < 20 || b[0] > tlsApp || b[1] != 3 || n > maxTLSBody {
		return frame{}, fault.Invalid.Errorf("TLS record of type %d, version %d.%d and %d bytes", b[0], b[1], b[2], n)
	}
	return frame{tlsHead + n, b[0] == tlsApp}, nil
}

// nextPlain peeks at a TPKT or fast-path packet of a session without TLS.
func nextPlain(r *bufio.Reader) (frame, error) {
	b, err := r.Peek(2)
	if err != nil {
		return frame{}, err
	}
	if b[0] == tpktVersion {
		if b, err = r.Peek(tpktHead); err != nil {
			return frame{}, err
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < tpktHead+3 {
			return frame{}, fault.Invalid.Errorf("packet of %d bytes", n)
		}
		return frame{n, true}, nil
	}
	if b[0]&3 != 0 { // a fast-path packet has action 0
		return frame{}, fault.Invalid.Errorf("packet that begins with %#x", b[0])
	}
	n, least := int(b[1]), 2
	if b[1]&0x80 != 0 {
		if b, err = r.Peek(3); err != nil {
			return frame{}, err
		}
		n, least = int(b[1]&0x7f)<<8|int(b[2]), 3
	}
	if n < least {
		return frame{}, fault.Invalid.Errorf("packet of %d bytes", n)
	}
	return frame{n, true}, nil
}
