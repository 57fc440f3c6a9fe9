package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
)

// auditLine is one line of the audit log on the wire. The last one may say why
// there are no more.
type auditLine struct {
	*audit.Record
	Error *api.Problem `json:"error,omitempty" doc:"What could not be read; alone on its line."`
}

// audits checks that the caller may read the audit log, and that there is one.
func (c *call) audits() error {
	switch {
	case !c.caller.Admin && !c.caller.Auditor:
		return fault.Denied.Errorf("read the audit log: only administrators and auditors may")
	case c.Audit == nil:
		return fault.Unsupported.Errorf("this plane keeps no audit log")
	}
	return nil
}

// audit serves the records that match.
func (c *call) audit() error {
	if err := c.audits(); err != nil {
		return err
	}
	values := c.r.URL.Query()
	q, err := auditQuery(values)
	if err != nil {
		return err
	}
	if values.Get("watch") == "true" {
		return c.followAudit(q)
	}
	out := newLines(c.w)
	out.begin()
	buffered := bufio.NewWriterSize(flushing{c.w, out.ctrl}, 64<<10)
	to := json.NewEncoder(buffered)
	err = c.Audit.Read(c.r.Context(), q, func(r audit.Record) error { return to.Encode(auditLine{Record: &r}) })
	if err != nil {
		_ = to.Encode(auditLine{Error: api.NewProblem(err)}) // the reader may be gone
	}
	_ = buffered.Flush()
	return err
}

// followAudit serves the records that match, and those to come for as long as
// the caller may read them.
func (c *call) followAudit(q audit.Query) error {
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	go func() {
		beat := time.NewTicker(c.Beat)
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-beat.C:
			}
			if now, err := c.Auth.Authenticate(c.r); err != nil || !now.Admin && !now.Auditor {
				cancel()
			}
		}
	}()
	out := newLines(c.w)
	out.begin()
	if err := out.flush(); err != nil {
		return nil // the reader is gone
	}
	err := c.Audit.Follow(ctx, q, func(r audit.Record) error { return out.write(auditLine{Record: &r}) })
	if err != nil && ctx.Err() == nil {
		_ = out.write(auditLine{Error: api.NewProblem(err)})
	}
	return nil
}

// auditQuery reads which records are asked for.
func auditQuery(v url.Values) (audit.Query, error) {
	q := audit.Query{Who: v.Get("who"), What: v.Get("what"), On: v.Get("on")}
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if text := v.Get(name); text != "" {
			t, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return q, fault.Invalid.Errorf("%s %q is no time; write it as 2026-11-23T08:00:00Z", name, text)
			}
			*at = t
		}
	}
	if text := v.Get("last"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostLast {
			return q, fault.Invalid.Errorf("last %q is not a number from 1 to %d", text, mostLast)
		}
		q.Last = n
	}
	if text := v.Get("after"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return q, fault.Invalid.Errorf("after %q is not the sequence of a record", text)
		}
		q.After = n
	}
	return q, nil
}

// mostLast is how many of the newest records may be asked for: they are held
// in memory at once.
const mostLast = 10_000

// auditReport is what a check of the log found.
type auditReport chain.Report

// verifyAudit checks the whole log.
func (c *call) verifyAudit() error {
	if err := c.audits(); err != nil {
		return err
	}
	report, err := c.Audit.Verify(c.r.Context())
	if err != nil {
		return err
	}
	if report.Broken != nil {
		c.Log.Error("the audit log is not as it was written", "where", report.Broken.Error())
	}
	return c.reply(http.StatusOK, auditReport(report))
}

// seals is the seals of the audit log.
type seals struct {
	Items []chain.Seal `json:"items"`
}

// auditSeals serves how far the log had come.
func (c *call) auditSeals() error {
	if err := c.audits(); err != nil {
		return err
	}
	list, err := c.Audit.Seals(c.r.Context())
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, seals{list})
}
