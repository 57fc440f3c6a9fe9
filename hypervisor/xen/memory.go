package xen

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"consort.dev/consort/fault"
)

// memoryHead begins a file of saved memory; the machine's XML and then libxl's
// own stream follow (libvirt 9.0, src/libxl/libxl_conf.h).
type memoryHead struct {
	Magic   [16]byte
	Version uint32
	XML     uint32 // its length
	_       [10]uint32
}

const memoryMagic = "libvirt-xml\n \x00 \r"

// maxXML bounds a machine's XML; libvirt's own limit is 10 MiB.
const maxXML = 10 << 20

// memory is where libvirt keeps the machine's saved memory.
func (m *machine) memory() string {
	return filepath.Join(m.host.cfg.SaveDir, string(m.id)+".save")
}

// memory sends the machine's saved memory without its XML, which names what is
// on this host.
func (t *trip) memory(ctx context.Context) error {
	f, err := os.Open(t.m.memory())
	if err != nil {
		return err
	}
	defer f.Close()
	head, err := readHead(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(int64(head.XML), io.SeekCurrent); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size() - int64(binary.Size(head)) - int64(head.XML)
	buf, zero := make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(f, buf)
		// Zeros become a hole there, but for those at either end of the file.
		if n > 0 && (at == 0 || at+int64(n) == size || !bytes.Equal(buf[:n], zero[:n])) {
			if err := t.piece(message{Memory: head.Version, At: at, Len: int64(n)}, buf[:n]); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		default:
			return err
		}
	}
}

func readHead(r io.Reader) (memoryHead, error) {
	var h memoryHead
	if err := binary.Read(r, binary.LittleEndian, &h); err != nil {
		return h, err
	}
	if string(h.Magic[:]) != memoryMagic || h.XML > maxXML {
		return h, fault.Unsupported.Errorf("saved memory begins as no libvirt that we know writes it")
	}
	return h, nil
}

// memoryAt returns where in the file of saved memory a piece belongs. With the
// first piece it begins the file, with the machine's XML as it is here.
func (m *machine) memoryAt(q message) (int64, error) {
	xml, err := m.definition()
	if err != nil {
		return 0, err
	}
	text := append([]byte(xml), 0) // libvirt counts the end of the string too
	head := memoryHead{Version: q.Memory, XML: uint32(len(text))}
	copy(head.Magic[:], memoryMagic)
	if q.At == 0 {
		data, err := binary.Append(nil, binary.LittleEndian, head)
		if err == nil {
			err = os.WriteFile(m.memory(), append(data, text...), 0o600)
		}
		if err != nil {
			return 0, err
		}
	}
	return int64(binary.Size(head)) + int64(len(text)) + q.At, nil
}
