package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// CallFile has an agent carry one file into or out of a guest. It answers with a
// FileReply line once the way is clear, which says how long a file that comes out
// is; then so many bytes go their way, and nothing else; another FileReply line
// ends it. Half a file leaves nothing in the guest.
const CallFile Verb = "file"

// File is a file to carry.
type File struct {
	Path string `json:"path" doc:"In the home folder of the account, as Downloads/report.odt."`
	User string `json:"user" doc:"The guest's account."`
	Out  bool   `json:"out,omitempty" doc:"Out of the guest."`
	Size int64  `json:"size,omitempty" doc:"Of a file that goes in; of one that comes out, the most it may have."`
}

// FileReply is what became of a file.
type FileReply struct {
	Size   int64         `json:"size"`
	Digest estate.Digest `json:"digest,omitempty" doc:"Of what was carried."`
	Error  *Problem      `json:"error,omitempty"`
}

// FilePath returns where files of a desktop are carried.
func FilePath(project, desktop string) string {
	return Path(estate.Ref{Kind: "Desktop", Project: project, Name: desktop}) + "/file"
}

// SendFile carries what r yields, so many bytes, into the home folder of a
// desktop's person, and returns once the desktop has found it whole. A name that
// is taken is fault.Exists; what the desktop's context does not allow is
// fault.Denied.
func (c *Client) SendFile(ctx context.Context, project, desktop, path string, size int64, r io.Reader) (*FileReply, error) {
	req := request{method: http.MethodPost, path: FilePath(project, desktop), query: url.Values{"path": {path}}, header: http.Header{
		"Content-Type": {"application/octet-stream"}, "Expect": {"100-continue"},
	}}
	resp, err := c.sendBody(ctx, req, r, size)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var reply FileReply
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		return nil, lost(ctx, req.method, true, c.what(req), err)
	}
	return &reply, nil
}

// FetchFile opens a file in the home folder of a desktop's person. Reading
// returns io.EOF only after all of it came.
func (c *Client) FetchFile(ctx context.Context, project, desktop, path string) (r io.ReadCloser, size int64, err error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: FilePath(project, desktop), query: url.Values{"path": {path}}})
	if err != nil {
		return nil, 0, err
	}
	if resp.ContentLength < 0 {
		resp.Body.Close()
		return nil, 0, fault.Internal.Errorf("fetch %s: the plane does not say how long it is", path)
	}
	return resp.Body, resp.ContentLength, nil
}
