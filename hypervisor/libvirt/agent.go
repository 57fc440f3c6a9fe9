package libvirt

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc"
)

// agentLimit is how long a guest's agent may take for one answer.
const agentLimit = 30 * time.Second

// Run implements driver.Guest. It does not keep the machine's turn, so that a
// long command keeps nobody waiting.
func (h *Host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	if _, err := h.record(ctx, id); err != nil {
		return driver.Output{}, err
	}
	if err := h.listens(ctx, id); err != nil {
		return driver.Output{}, err
	}
	agent := h.agent(id)
	defer agent.Close()
	out, err := agent.Run(ctx, cmd.Args, cmd.Stdin)
	return driver.Output(out), err
}

// listens reports whether the guest has the agent's port open.
func (h *Host) listens(ctx context.Context, id estate.MachineID) error {
	state, _, err := h.conn.State(ctx, string(id))
	if err != nil {
		return err
	}
	if !active(state) {
		return fault.Unavailable.Errorf("no guest agent answers: machine %s is off", id)
	}
	x, err := h.live(ctx, id)
	if err != nil {
		return err
	}
	for _, c := range x.Devices.Channels {
		if t := c.Target; t != nil && t.VirtIO != nil && t.VirtIO.Name == agentPort && t.VirtIO.State == "connected" {
			return nil
		}
	}
	return fault.Unavailable.Errorf("no guest agent is up yet, or none is installed")
}

// agent returns a client of the guest's agent. The daemon has the agent's port
// to itself, and carries one command and its answer at a time.
func (h *Host) agent(id estate.MachineID) *qga.Client {
	return qga.New(func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		l := &agentLine{Conn: near}
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			defer cancel()
			defer far.Close()
			l.why = carry(ctx, far, func(ctx context.Context, command string) (string, error) {
				return h.conn.Agent(ctx, string(id), command, int(agentLimit/time.Second))
			})
		}()
		return l, nil
	})
}

// agentLine is our end of the line to an agent. It ends with what the daemon said of it.
type agentLine struct {
	net.Conn
	why error // written before the other end is closed, read after
}

func (l *agentLine) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err == io.EOF && l.why != nil {
		err = l.why
	}
	return n, err
}

// carry answers what is said on the line to an agent through ask, which has one
// command answered. The daemon keeps in step with the agent by itself, so the
// words by which a client gets into step are answered here. It returns why no
// more is answered.
func carry(ctx context.Context, line io.ReadWriter, ask func(context.Context, string) (string, error)) error {
	for in := bufio.NewReader(line); ; {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		for len(text) > 0 && text[0] == 0xff {
			text = text[1:]
		}
		var command struct {
			Execute   string `json:"execute"`
			Arguments struct {
				ID int64 `json:"id"`
			} `json:"arguments"`
		}
		if err := json.Unmarshal(text, &command); err != nil {
			return err
		}
		var answer []byte
		if command.Execute == "guest-sync-delimited" {
			b, _ := json.Marshal(map[string]any{"return": command.Arguments.ID}) // a number marshals
			answer = append([]byte{0xff}, b...)
		} else if answer, err = reply(ask(ctx, string(text))); err != nil {
			return err
		}
		if _, err := line.Write(append(answer, '\n')); err != nil {
			return err
		}
	}
}

// reply turns what the daemon says into what the agent said: a command that the
// agent refused is an error of the daemon's own (1, of its part 0 or 10).
func reply(text string, err error) ([]byte, error) {
	var refused *virtrpc.Error
	if err == nil {
		return []byte(text), nil
	}
	if !errors.As(err, &refused) || refused.Code != 1 {
		return nil, err
	}
	return json.Marshal(map[string]any{"error": map[string]string{"class": "GenericError", "desc": refused.Text}})
}
