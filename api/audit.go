package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"consort.dev/consort/fault"
)

// longestAuditLine is more than one record of the audit log has.
const longestAuditLine = 1 << 20

// Audit gives each line of the audit log that the query asks for to visit, as
// JSON, until visit returns an error. What the plane could not read is the error.
func (c *Client) Audit(ctx context.Context, query url.Values, visit func(line []byte) error) error {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: AuditPath, query: query})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, longestAuditLine)
	for lines.Scan() {
		var last struct {
			Error *Problem `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			return fault.Unavailable.Errorf("read the audit log: the answer broke off: %w", err)
		}
		if last.Error != nil {
			return last.Error
		}
		if err := visit(lines.Bytes()); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fault.Unavailable.Errorf("read the audit log: the answer broke off: %w", err)
	}
	return nil
}

// VerifyAudit has the plane check its audit log and decodes what it found.
func (c *Client) VerifyAudit(ctx context.Context, out any) error {
	_, err := c.do(ctx, request{method: http.MethodGet, path: AuditPath + "/verify"}, out)
	return err
}

// AuditSeals writes how far the plane's audit log had come, as JSON.
func (c *Client) AuditSeals(ctx context.Context, w io.Writer) error {
	var text []byte
	if _, err := c.do(ctx, request{method: http.MethodGet, path: AuditPath + "/seals"}, &text); err != nil {
		return err
	}
	_, err := w.Write(text)
	return err
}
