package front

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hear answers on a connection and returns each request's head as its bytes
// came, with how its body was framed. It is far stricter than net/http.
func hear(conn net.Conn, heads chan<- string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		var head strings.Builder
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			if line == "\r\n" {
				break
			}
		}
		heads <- head.String()
		req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head.String()), in)))
		if err != nil {
			return
		}
		if req.ContentLength != 0 {
			// Whoever frames a body is asked once: what follows is not looked at.
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

// unclear says what two readers of a head could disagree about.
func unclear(head string) string {
	lengths, encodings, hosts := 0, 0, 0
	lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	for i, line := range lines {
		if strings.ContainsAny(line, "\r\n\x00") {
			return "a bare CR, LF or NUL"
		}
		if i == 0 {
			if strings.Count(line, " ") != 2 || !strings.HasSuffix(line, " HTTP/1.1") {
				return "a request line of other than three words"
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return "a folded line, or a space in a name"
		}
		switch strings.ToLower(name) {
		case "content-length":
			lengths++
		case "transfer-encoding":
			encodings++
			if strings.TrimSpace(value) != "chunked" {
				return "an encoding other than chunked"
			}
		case "host":
			hosts++
		}
	}
	if lengths+encodings > 1 || hosts != 1 {
		return "two framings, or not one host"
	}
	return ""
}

// FuzzNoRequestIsSmuggled sends bytes to a front: a replica may get only heads
// that everybody reads alike, and no more of them than the front counted.
func FuzzNoRequestIsSmuggled(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabcGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\nHost: x\nContent-Length: +4\n\nabcd",
		"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n Content-Length: 4\r\n\r\nabcd",
		"GET /\rHTTP/1.1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
		"GET http://other/ HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	heads := make(chan string, 4096)
	replica, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { replica.Close() })
	go func() {
		for {
			conn, err := replica.Accept()
			if err != nil {
				return
			}
			go hear(conn, heads)
		}
	}()
	w := town{elsewhere: replica.Addr().String()}
	front, at := w.open(f, Options{Limits: Limits{Head: 2 * time.Second, Stall: 2 * time.Second}}, "a")
	got := int64(0) // heads, of all inputs: one may come late whose client has gone
	f.Fuzz(func(t *testing.T, sent []byte) {
		if bytes.HasPrefix(sent, []byte("PRI * HTTP/2")) {
			return // HTTP/2 has frames and no such heads
		}
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(sent)
		// The end of what a client sends is taken for its going away: an answer
		// must be on its way before.
		conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		conn.Read(make([]byte, 1))
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		io.Copy(io.Discard, conn)
		counted := ended(settled(t, front))
		for {
			select {
			case head := <-heads:
				got++
				if why := unclear(head); why != "" {
					t.Errorf("the replica got %s:\n%q", why, head)
				}
				if got > counted {
					t.Errorf("the replica has %d requests where the front counted %d, the last:\n%q", got, counted, head)
				}
				continue
			default:
			}
			break
		}
	})
}

// ended returns how many requests have.
func ended(n Figures) (all int64) {
	for _, s := range n.Series {
		all += s.Count
	}
	return all + n.Retries
}

func TestTheJudgeOfHeadsSeesWhatIsUnclear(t *testing.T) {
	fine := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
	if why := unclear(fine + "\r\n"); why != "" {
		t.Errorf("a plain head: %s", why)
	}
	for _, line := range []string{"Transfer-Encoding: chunked", "Content-Length: 4", "Host: y", " folded: x", "A : b", "A: b\nB: c", "Transfer-Encoding: gzip"} {
		if unclear(fine+line+"\r\n\r\n") == "" {
			t.Errorf("it passes %q", line)
		}
	}
}
