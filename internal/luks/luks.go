// Package luks encrypts a file whole, in the first version of the LUKS format
// (LUKS1 On-Disk Format Specification 1.2.3), for keys that are random.
package luks

import (
	"crypto/aes"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"golang.org/x/crypto/xts"
)

// Key opens a file. It is 256 random bits as 64 hexadecimal digits, since QEMU
// takes nothing for a key that is not text. It is made to be kept in memory.
type Key [64]byte

// NewKey returns another key.
func NewKey() (k Key) {
	var random [32]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	hex.Encode(k[:], random[:])
	clear(random[:])
	return k
}

// ID names the key: 64 hexadecimal digits, from which nothing about it follows.
func (k *Key) ID() string {
	id, err := hkdf.Key(sha256.New, k[:], nil, "consort: which key", sha256.Size)
	if err != nil {
		panic(err) // 32 bytes are few enough for any hash
	}
	return hex.EncodeToString(id)
}

// Forget overwrites the key. What a garbage collector may have copied it to is
// beyond us; Go's does not move what lies in a heap.
func (k *Key) Forget() { clear(k[:]) }

// Shape of the files: AES-256 in XTS mode, as cryptsetup makes them. A random
// key needs no stretching, so that it is done as seldom as the format allows.
const (
	sector     = 512
	keyBytes   = 64   // two AES-256 keys
	stripes    = 4000 // that a slot's key material is split into; fixed
	slots      = 8
	iterations = 1000 // the least that cryptsetup makes

	slotSectors = (keyBytes*stripes/sector + 7) / 8 * 8
	firstSlot   = 8

	// Payload is where the content begins.
	Payload = (firstSlot + slots*slotSectors) * sector
)

// header is how the format lays it down, big-endian.
type header struct {
	Magic            [6]byte
	Version          uint16
	Cipher           [32]byte
	Mode             [32]byte
	Hash             [32]byte
	PayloadSector    uint32
	KeyBytes         uint32
	Digest           [20]byte
	DigestSalt       [32]byte
	DigestIterations uint32
	UUID             [40]byte
	Slots            [slots]slot
}

type slot struct {
	Active     uint32
	Iterations uint32
	Salt       [32]byte
	Sector     uint32
	Stripes    uint32
}

const (
	slotUsed = 0x00AC71F3
	slotFree = 0x0000DEAD
)

// Seal writes to f what content yields, so that it opens with the key and no
// other way. The file must be empty; it is not flushed to its disk.
func Seal(f *os.File, k *Key, content io.Reader) error {
	h := header{Version: 1, PayloadSector: Payload / sector, KeyBytes: keyBytes, DigestIterations: iterations}
	copy(h.Magic[:], "LUKS\xba\xbe")
	copy(h.Cipher[:], "aes")
	copy(h.Mode[:], "xts-plain64")
	copy(h.Hash[:], "sha256")
	master := make([]byte, keyBytes)
	defer clear(master)
	rand.Read(master)
	rand.Read(h.DigestSalt[:])
	digest, err := pbkdf2.Key(sha256.New, string(master), h.DigestSalt[:], iterations, len(h.Digest))
	if err != nil {
		return err
	}
	copy(h.Digest[:], digest)
	for i := range h.Slots {
		h.Slots[i] = slot{Active: slotFree, Sector: firstSlot + uint32(i)*slotSectors, Stripes: stripes}
	}
	first := &h.Slots[0]
	first.Active, first.Iterations = slotUsed, iterations
	rand.Read(first.Salt[:])
	material, err := lock(k, first, master)
	if err != nil {
		return err
	}
	if err := binary.Write(io.NewOffsetWriter(f, 0), binary.BigEndian, &h); err != nil {
		return err
	}
	if _, err := f.WriteAt(material, int64(first.Sector)*sector); err != nil {
		return err
	}
	return fill(f, master, content)
}

// lock returns what a slot holds: the master key, split so that none of it is
// left once a little of it is lost, and encrypted with what follows from k.
func lock(k *Key, s *slot, master []byte) ([]byte, error) {
	own, err := pbkdf2.Key(sha256.New, string(k[:]), s.Salt[:], int(s.Iterations), keyBytes)
	if err != nil {
		return nil, err
	}
	defer clear(own)
	c, err := xts.NewCipher(aes.NewCipher, own)
	if err != nil {
		return nil, err
	}
	material := split(master)
	encrypt(c, material, 0)
	return material, nil
}

// split is the format's splitter (section 2.4): all stripes but the last are
// random, and the last one makes the key of them.
func split(key []byte) []byte {
	all := make([]byte, len(key)*stripes)
	rand.Read(all[:len(key)*(stripes-1)])
	mixed := make([]byte, len(key))
	for i := range stripes - 1 {
		xor(mixed, all[i*len(key):])
		diffuse(mixed)
	}
	last := all[len(key)*(stripes-1):]
	copy(last, key)
	xor(last, mixed)
	return all
}

func xor(to, with []byte) {
	for i := range to {
		to[i] ^= with[i]
	}
}

// diffuse has each bit depend on others.
func diffuse(b []byte) {
	for i := 0; i*sha256.Size < len(b); i++ {
		part := b[i*sha256.Size : min((i+1)*sha256.Size, len(b))]
		sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(i)), part...))
		copy(part, sum[:])
	}
}

// fill encrypts the content with the master key. Its last sector is filled up
// with zeros.
func fill(f *os.File, master []byte, content io.Reader) error {
	c, err := xts.NewCipher(aes.NewCipher, master)
	if err != nil {
		return err
	}
	buf := make([]byte, 256*sector)
	for at := int64(0); ; {
		n, err := io.ReadFull(content, buf)
		if n > 0 {
			whole := (n + sector - 1) / sector * sector
			clear(buf[n:whole])
			encrypt(c, buf[:whole], uint64(at/sector))
			if _, err := f.WriteAt(buf[:whole], Payload+at); err != nil {
				return err
			}
			at += int64(whole)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// encrypt encrypts sectors in place, the first of which has that number.
func encrypt(c *xts.Cipher, b []byte, number uint64) {
	for ; len(b) > 0; b, number = b[sector:], number+1 {
		c.Encrypt(b[:sector], b[:sector], number)
	}
}
