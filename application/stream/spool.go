package stream

import (
	"io"
	"os"

	"consort.dev/consort/fault"
)

// spool holds the content of files, one after the other, in one temporary file.
type spool struct {
	file *os.File
	end  int64
}

// newSpool makes an empty spool in dir. Its name is gone at once, so that
// nothing is left behind whatever happens.
func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &spool{file: f}, nil
}

// add appends size bytes of r and returns where they begin.
func (s *spool) add(r io.Reader, size int64) (offset int64, err error) {
	if s.end+size > mostBytes {
		return 0, fault.Invalid.Errorf("it unpacks to more than %d GiB", mostBytes>>30)
	}
	n, err := io.Copy(io.NewOffsetWriter(s.file, s.end), io.LimitReader(r, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, err
	}
	offset = s.end
	s.end += size
	return offset, nil
}

// content returns size bytes from offset.
func (s *spool) content(offset, size int64) io.Reader {
	return io.NewSectionReader(s.file, offset, size)
}

func (s *spool) close() error { return s.file.Close() }
