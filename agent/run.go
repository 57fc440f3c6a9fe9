package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// runLimit is how long a command of an administrator may take.
const runLimit = 10 * time.Minute

// serveRun runs the command that comes through the tunnel and sends back what
// it left behind.
func (a *Agent) serveRun(ctx context.Context, k *keeper, c api.Call) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	conn, err := a.Plane.OpenCall(ctx, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	var req api.RunRequest
	var reply api.RunReply
	if err := json.NewDecoder(bufio.NewReader(conn)).Decode(&req); err != nil {
		reply.Error = api.NewProblem(fault.Unavailable.Errorf("the command did not arrive: %w", err))
		return json.NewEncoder(conn).Encode(reply)
	}
	out, err := a.Host.Run(ctx, k.id, driver.Command{Args: req.Args, Stdin: req.Stdin})
	if err != nil {
		reply.Error = api.NewProblem(err)
	}
	reply.Exit, reply.Stdout, reply.Stderr = out.Exit, out.Stdout, out.Stderr
	return json.NewEncoder(conn).Encode(reply)
}
