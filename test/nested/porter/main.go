// Porter lets a test into a nested host: it runs commands there, takes files,
// and carries connections. It serves whoever reaches it, so the host must be
// reachable by its test alone.
//
// A connection carries one request: a line of JSON, then the bytes it announces.
// The answer is a line of JSON; the connection of a dial then carries what the
// two sides say.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// request is what the other side asks: one of Run, Put and Dial.
type request struct {
	Run  []string // program and arguments
	Put  string   // path of a file to write
	Mode uint32   // of that file
	Size int64    // of the command's input, which follows, or of the file, whose pieces follow
	Dial []string // network and address
}

// answer is how it went.
type answer struct {
	Exit   int
	Stdout []byte
	Stderr []byte
	Error  string
}

func main() {
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn)
	}
}

func serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 1<<20)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return
	}
	var q request
	if err := json.Unmarshal(line, &q); err != nil {
		reply(conn, answer{Error: err.Error()})
		return
	}
	switch {
	case q.Run != nil:
		reply(conn, run(q, in))
	case q.Put != "":
		reply(conn, answer{Error: text(put(q, in))})
	case len(q.Dial) == 2:
		join(conn, in, q)
	default:
		reply(conn, answer{Error: "nothing asked"})
	}
}

func reply(w io.Writer, a answer) error { return json.NewEncoder(w).Encode(a) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// run runs a command until it ends or whoever asked hangs up.
func run(q request, in *bufio.Reader) answer {
	stdin := make([]byte, q.Size)
	if _, err := io.ReadFull(in, stdin); err != nil {
		return answer{Error: err.Error()}
	}
	var a answer
	var out, errs bytes.Buffer
	cmd := exec.Command(q.Run[0], q.Run[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		return answer{Error: err.Error()}
	}
	go func() {
		if _, err := in.ReadByte(); err != nil {
			cmd.Process.Kill() // nobody waits for it any more
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		a.Error = err.Error()
	}
	a.Exit, a.Stdout, a.Stderr = cmd.ProcessState.ExitCode(), out.Bytes(), errs.Bytes()
	return a
}

// put writes a file from pieces: an offset and a length of eight bytes each,
// then so many bytes. A length of zero ends it. What no piece covers is a hole.
func put(q request, in io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(q.Put), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(q.Put, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, os.FileMode(q.Mode))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(q.Size); err != nil {
		return err
	}
	for {
		var piece struct{ At, Len int64 }
		if err := binary.Read(in, binary.BigEndian, &piece); err != nil {
			return err
		}
		if piece.Len == 0 {
			return f.Close()
		}
		if _, err := io.CopyN(io.NewOffsetWriter(f, piece.At), in, piece.Len); err != nil {
			return err
		}
	}
}

// join carries bytes between the caller and what it dialled.
func join(conn net.Conn, in *bufio.Reader, q request) {
	far, err := net.Dial(q.Dial[0], q.Dial[1])
	if reply(conn, answer{Error: text(err)}) != nil || err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{}, 2)
	pass := func(to net.Conn, from io.Reader) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		done <- struct{}{}
	}
	go pass(far, in)
	go pass(conn, far)
	<-done
	<-done
}
