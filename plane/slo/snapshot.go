package slo

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"consort.dev/consort/fault"
)

// A snapshot is the mark, then whole numbers as varints, then the CRC-32 (IEEE)
// of all of it. Good and bad events of each minute follow each other, the oldest
// first; sums are made anew from them.
const (
	mark     = "slo1"
	mostKeep = 400 * 24 * 60 // minutes that Restore makes room for
)

// Snapshot returns the ledger and the meter that fills it as bytes for Restore.
// They belong together: what a restored meter reads as new is exactly what the
// restored ledger has not counted, so a snapshot that is some minutes old loses
// no event of a source that is still there.
func Snapshot(l *Ledger, m *Meter) []byte {
	b := binary.AppendUvarint([]byte(mark), uint64(len(l.good)-1))
	for _, v := range []int64{l.begin, l.head, l.lost.Good, l.lost.Bad()} {
		b = binary.AppendVarint(b, v)
	}
	var bits, n byte
	var heard []byte
	for at := l.oldest(); at <= l.head; at++ {
		c := l.in(at, at+1)
		b = binary.AppendUvarint(b, uint64(c.Good))
		b = binary.AppendUvarint(b, uint64(c.Bad()))
		bits |= byte(l.heardIn(at)) << n
		if n++; n == 8 || at == l.head {
			heard = append(heard, bits)
			bits, n = 0, 0
		}
	}
	b = append(b, heard...)
	b = binary.AppendVarint(b, m.since)
	b = binary.AppendUvarint(b, uint64(len(m.last)))
	for _, r := range m.readings() {
		b = binary.AppendUvarint(b, uint64(len(r.Source)))
		b = append(b, r.Source...)
		b = binary.AppendVarint(b, r.Started.Unix())
		b = binary.AppendUvarint(b, uint64(r.Started.Nanosecond()))
		b = binary.AppendUvarint(b, uint64(r.Good))
		b = binary.AppendUvarint(b, uint64(r.Bad()))
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// Restore returns what Snapshot was given. Bytes that it did not write are
// fault.Invalid.
func Restore(b []byte) (*Ledger, *Meter, error) {
	n := len(b) - crc32.Size
	if n < len(mark) || string(b[:len(mark)]) != mark || crc32.ChecksumIEEE(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return nil, nil, fault.Invalid.Errorf("restore service level: %d bytes that are no snapshot, or a broken one; begin a new ledger", len(b))
	}
	in := &reader{b: b[len(mark):n]}
	l := in.ledger()
	m := in.meter()
	if in.bad || len(in.b) > 0 {
		return nil, nil, fault.Invalid.Errorf("restore service level: a snapshot that does not add up; begin a new ledger")
	}
	return l, m, nil
}

// reader takes numbers off the front; after the first that is not there, bad is
// set and every number is 0.
type reader struct {
	b   []byte
	bad bool
}

func (in *reader) ledger() *Ledger {
	keep := in.unsigned()
	begin, head := in.signed(), in.signed()
	lost := in.pair(in.signed(), in.signed())
	if keep < 1 || keep > mostKeep || head < begin || begin < -1<<40 || head > 1<<40 {
		in.bad = true
	}
	if in.bad {
		return nil
	}
	l := sized(time.Duration(keep) * time.Minute)
	l.begin, l.head, l.lost = begin, head, lost
	var sum Count
	for at := l.oldest(); at <= head && !in.bad; at++ {
		sum = sum.plus(in.pair(in.unsigned(), in.unsigned()))
		if !sum.valid() {
			in.bad = true // the sums are too large for any number
		}
		l.good[l.at(at)], l.total[l.at(at)] = sum.Good, sum.Total
	}
	minutes := head - l.oldest() + 1
	bits := in.bytes((minutes + 7) / 8)
	var heard uint32
	for i := range int64(len(bits)) * 8 {
		on := uint32(bits[i/8] >> (i % 8) & 1)
		if i >= minutes {
			in.bad = in.bad || on != 0
			continue
		}
		heard += on
		l.heard[l.at(l.oldest()+i)] = heard
	}
	return l
}

func (in *reader) meter() *Meter {
	m := &Meter{since: in.signed(), last: map[string]Reading{}}
	for range in.unsigned() {
		r := Reading{Source: string(in.bytes(in.unsigned()))}
		r.Started = time.Unix(in.signed(), in.unsigned()).UTC()
		r.Count = in.pair(in.unsigned(), in.unsigned())
		if in.bad {
			break
		}
		m.last[r.Source] = r
	}
	return m
}

// pair makes a count of good and bad.
func (in *reader) pair(good, bad int64) Count {
	c := Count{good, good + bad}
	if bad < 0 || !c.valid() {
		in.bad = true
	}
	return c
}

func (in *reader) signed() int64 {
	v, n := binary.Varint(in.b)
	return in.took(v, n)
}

func (in *reader) unsigned() int64 {
	v, n := binary.Uvarint(in.b)
	return in.took(int64(v), n)
}

func (in *reader) took(v int64, n int) int64 {
	if n <= 0 || in.bad {
		in.bad = true
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *reader) bytes(n int64) []byte {
	if n < 0 || n > int64(len(in.b)) || in.bad {
		in.bad = true
		return nil
	}
	out := in.b[:n]
	in.b = in.b[n:]
	return out
}
