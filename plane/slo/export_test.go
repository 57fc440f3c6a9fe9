package slo

import (
	"encoding/binary"
	"hash/crc32"
)

// Sealed puts the sum under a body, so that fuzzing reaches what is behind it.
func Sealed(body []byte) []byte {
	return binary.BigEndian.AppendUint32(body[:len(body):len(body)], crc32.ChecksumIEEE(body))
}
