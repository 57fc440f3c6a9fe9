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

// What is asked of the store, and what a refusal's type is
// (xen/include/public/io/xs_wire.h).
const (
	storeRead  = 2
	storeWrite = 11
	storeError = 16
)

// storeHead precedes every message.
type storeHead struct{ Type, Request, Transaction, Length uint32 }

// readStore returns a value of Xen's store.
func readStore(ctx context.Context, path string) (string, error) {
	return askStore(ctx, storeRead, path+"\x00")
}

// writeStore writes a value into Xen's store.
func writeStore(ctx context.Context, path, value string) error {
	_, err := askStore(ctx, storeWrite, path+"\x00"+value)
	return err
}

func askStore(ctx context.Context, what uint32, body string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", storeSocket)
	if err != nil {
		return "", fault.Unavailable.Errorf("reach Xen's store: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return exchange(conn, what, body)
}

// exchange sends a request and returns the answer to it.
func exchange(conn io.ReadWriter, what uint32, body string) (string, error) {
	msg, err := binary.Append(nil, binary.LittleEndian, storeHead{Type: what, Length: uint32(len(body))})
	if err != nil {
		return "", err
	}
	if _, err := conn.Write(append(msg, body...)); err != nil {
		return "", err
	}
	var head storeHead
	if err := binary.Read(conn, binary.LittleEndian, &head); err != nil {
		return "", err
	}
	// XENSTORE_PAYLOAD_MAX is 4096.
	text, err := io.ReadAll(io.LimitReader(conn, int64(min(head.Length, 4096))))
	if err == nil && head.Type == storeError {
		err = fault.Internal.Errorf("Xen's store refuses %q: %s", body, text)
	}
	return string(text), err
}
