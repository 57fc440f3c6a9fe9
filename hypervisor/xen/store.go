package xen

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"time"

	"consort.dev/consort/fault"
)

// storeSocket is where xenstored listens in the first domain.
const storeSocket = "/run/xenstored/socket"

// storeWrite is XS_WRITE, and storeError what a refusal's type is
// (xen/include/public/io/xs_wire.h).
const (
	storeWrite = 11
	storeError = 16
)

// storeHead precedes every message.
type storeHead struct{ Type, Request, Transaction, Length uint32 }

// writeStore writes a value into Xen's store.
func writeStore(ctx context.Context, path, value string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", storeSocket)
	if err != nil {
		return fault.Unavailable.Errorf("reach Xen's store: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return exchange(conn, path, value)
}

// exchange sends the request and reads the answer to it.
func exchange(conn io.ReadWriter, path, value string) error {
	body := append([]byte(path), 0)
	body = append(body, value...)
	msg, _ := binary.Append(nil, binary.LittleEndian, storeHead{Type: storeWrite, Length: uint32(len(body))})
	if _, err := conn.Write(append(msg, body...)); err != nil {
		return err
	}
	var head storeHead
	if err := binary.Read(conn, binary.LittleEndian, &head); err != nil {
		return err
	}
	// XENSTORE_PAYLOAD_MAX is 4096.
	text, err := io.ReadAll(io.LimitReader(conn, int64(min(head.Length, 4096))))
	if err == nil && head.Type == storeError {
		err = fault.Internal.Errorf("Xen's store: write %s: %s", path, text)
	}
	return err
}
