package hyperv

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/Azure/go-ntlmssp"

	"consort.dev/consort/fault"
)

const (
	lanes       = 4                // commands at once; a user may have 30 shells
	receiveWait = 20 * time.Second // the service answers a Receive by then, if only that there is nothing
	replyWait   = 25 * time.Second // beyond that, before we give a connection up
	tidyLimit   = 5 * time.Second  // for ending a command that nobody waits for any more
	sendSize    = 256 << 10        // input in one message: 342 KiB in base64, within maxEnvelope
	maxReply    = 4 << 20          // of one message
	maxOutput   = 64 << 20         // of one command
)

// winrm runs commands on a Windows host through WS-Management (MS-WSMV). It
// has a few lanes, each one connection with one shell, since NTLM authenticates
// connections and a waiting Receive occupies one.
type winrm struct {
	endpoint string
	free     chan *lane
	tidying  sync.WaitGroup
}

// lane runs one command at a time. Whoever took it from free has it alone.
type lane struct {
	w         *winrm
	transport *http.Transport
	client    *http.Client
	user      string
	password  string
	shell     string // empty when there is none
}

// newWinRM returns a client; it connects when it is first used. Plain HTTP is
// refused but to this machine itself, since nothing would keep passwords and
// disks from being read or changed on the way.
func newWinRM(endpoint, user, password string, roots *x509.CertPool) (*winrm, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fault.Invalid.Errorf("the endpoint is none of WinRM: write https://HOST:5986/wsman, and user and password in a file")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, fault.Invalid.Errorf("endpoint %s is not https; make an HTTPS listener on the host: winrm quickconfig -transport:https", endpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/wsman"
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), map[string]string{"https": "5986", "http": "5985"}[u.Scheme])
	}
	w := &winrm{endpoint: u.String(), free: make(chan *lane, lanes)}
	for range lanes {
		t := &http.Transport{
			MaxConnsPerHost: 1, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
			DialContext:     (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		}
		w.free <- &lane{w: w, transport: t, client: &http.Client{Transport: ntlmssp.Negotiator{RoundTripper: t}, CheckRedirect: stay}, user: user, password: password}
	}
	return w, nil
}

// close ends the shells. Commands that run are waited for.
func (w *winrm) close() {
	w.tidying.Wait()
	for range lanes {
		l := <-w.free
		l.drop()
		l.transport.CloseIdleConnections()
	}
	close(w.free) // nobody has a lane any more, or ever will
}

// run runs a command with its input and returns what it wrote. Until the whole
// input was sent the command cannot have begun to act: errors up to then are
// fault.Unavailable, and later ones fault.OutcomeUnknown.
func (w *winrm) run(ctx context.Context, line string, input []byte) (stdout []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case l, ok := <-w.free:
		if !ok {
			return nil, fault.Unavailable.Errorf("the connection was closed; open the host again")
		}
		var command string
		if command, err = l.begin(ctx, line); err == nil {
			stdout, err = l.converse(ctx, command, input)
		}
		l.release(command, err)
		return stdout, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release gives the lane back. After an error the command is ended and the
// shell left, in the background: the caller's context may be over.
func (l *lane) release(command string, err error) {
	if err == nil {
		l.w.free <- l
		return
	}
	l.w.tidying.Go(func() {
		if command != "" && l.shell != "" {
			ctx, cancel := context.WithTimeout(context.Background(), tidyLimit)
			l.ask(ctx, terminate(l.shell, command)) // the shell goes anyway
			cancel()
		}
		l.drop()
		l.w.free <- l
	})
}

// drop ends the lane's shell, and with it what still runs there.
func (l *lane) drop() {
	if l.shell == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tidyLimit)
	defer cancel()
	l.ask(ctx, deleteShell(l.shell)) // one that cannot be reached ends when it was idle for long enough
	l.shell = ""
}

// begin starts the command. A shell that is gone, or that has had as many
// commands as it may, is replaced once: a text shell never counts a command as
// over (MS-WSMV, note 118).
func (l *lane) begin(ctx context.Context, line string) (string, error) {
	for try := 1; ; try++ {
		if l.shell == "" {
			r, err := l.ask(ctx, createShell())
			if err != nil {
				return "", err
			}
			if l.shell = r.shellID(); l.shell == "" {
				return "", fault.Unavailable.Errorf("WinRM made a shell without an ID")
			}
		}
		r, err := l.ask(ctx, runCommand(l.shell, line))
		var f *wsFault
		if errors.As(err, &f) && (f.code == faultNoShell || f.code == faultOperations) && try == 1 {
			l.drop()
			continue
		}
		if err == nil && r.Body.Command.ID == "" {
			err = fault.Unavailable.Errorf("WinRM began a command without an ID")
		}
		if err != nil {
			return "", err
		}
		return r.Body.Command.ID, nil
	}
}

// converse sends the input and receives the output until the command is done.
func (l *lane) converse(ctx context.Context, command string, input []byte) ([]byte, error) {
	for {
		n := min(len(input), sendSize)
		last := n == len(input)
		if _, err := l.ask(ctx, sendInput(l.shell, command, input[:n], last)); err != nil {
			if last && !refused(err) {
				err = unknown(err)
			}
			return nil, err
		}
		if input = input[n:]; last {
			break
		}
	}
	var stdout, stderr []byte
	for {
		r, err := l.ask(ctx, receiveOutput(l.shell, command))
		var f *wsFault
		if errors.As(err, &f) && f.code == faultTimedOut {
			continue
		}
		if err != nil {
			return nil, unknown(err)
		}
		for name, to := range map[string]*[]byte{"stdout": &stdout, "stderr": &stderr} {
			piece, err := r.output(name)
			if err != nil {
				return nil, unknown(err)
			}
			*to = append(*to, piece...)
		}
		if len(stdout)+len(stderr) > maxOutput {
			return nil, fault.OutcomeUnknown.Errorf("the host's answer has more than %d bytes", maxOutput)
		}
		if state := r.Body.Receive.State; state.State == stateDone {
			if len(bytes.TrimSpace(stdout)) == 0 {
				return nil, fault.OutcomeUnknown.Errorf("PowerShell ended with %d and no answer: %s", state.Exit, firstLine(stderr))
			}
			return stdout, nil
		}
	}
}

// unknown says of an error that the command may have acted all the same.
func unknown(err error) error {
	return fault.OutcomeUnknown.Errorf("the host's answer was lost: %w", err)
}

// refused reports whether the service itself answered that it did not do it.
func refused(err error) bool {
	var f *wsFault
	return errors.As(err, &f)
}

// ask sends one message and returns the answer to it.
func (l *lane) ask(ctx context.Context, m message) (*reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, receiveWait+replyWait, errSilent)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.w.endpoint, bytes.NewReader(m.encode(l.w.endpoint, messageID(), receiveWait)))
	if err != nil {
		return nil, fault.Invalid.Errorf("ask WinRM: %w", err)
	}
	req.Header.Set("Content-Type", "application/soap+xml;charset=UTF-8")
	req.SetBasicAuth(l.user, l.password) // becomes NTLM where the host offers that
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, l.broken(ctx, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, l.broken(ctx, err)
	}
	if len(data) > maxReply {
		return nil, fault.Unavailable.Errorf("an answer of WinRM has more than %d bytes", maxReply)
	}
	return l.judge(resp.StatusCode, data)
}

// judge turns what came back into a reply or an error with a kind.
func (l *lane) judge(status int, data []byte) (*reply, error) {
	switch status {
	case http.StatusOK, http.StatusInternalServerError, http.StatusBadRequest:
	case http.StatusUnauthorized:
		return nil, fault.Unauthenticated.Errorf("the host does not accept user %q with the password given; check the credentials file, and that WinRM allows Basic or Negotiate", l.user)
	case http.StatusForbidden:
		return nil, fault.Denied.Errorf("user %q may not use WinRM; put it in Remote Management Users and Hyper-V Administrators", l.user)
	default:
		return nil, fault.Unavailable.Errorf("WinRM answers %d %s", status, http.StatusText(status))
	}
	r, err := parseReply(data)
	var f *wsFault
	if !errors.As(err, &f) {
		return r, err
	}
	switch f.code {
	case faultShells, faultOperations:
		return nil, fault.Busy.Errorf("the host allows the user no more shells: %w", err)
	}
	return nil, fault.Unavailable.Errorf("%w", err)
}

// stay follows no redirection: the host answers itself, or not at all.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

var errSilent = errors.New("no answer in time")

// broken names a connection's end. A caller's own end stays what it is.
func (l *lane) broken(ctx context.Context, err error) error {
	l.transport.CloseIdleConnections()
	if errors.Is(context.Cause(ctx), errSilent) {
		return fault.Unavailable.Errorf("reach %s: %w", l.w.endpoint, errSilent)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	if errors.As(err, &authority) || errors.As(err, &name) {
		return fault.Unavailable.Errorf("the host's certificate is not trusted: %w; give the certificate of who signed it", err)
	}
	return fault.Unavailable.Errorf("reach %s: %w", l.w.endpoint, err)
}

// messageID is a random UUID.
func messageID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// firstLine is the start of what a program said, for an error's text.
func firstLine(b []byte) string {
	b, _, _ = bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(b[:min(len(b), 200)])
}
