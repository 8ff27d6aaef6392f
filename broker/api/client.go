package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// SystemSocket is where the system's broker answers.
const SystemSocket = "/run/poemq/control.sock"

// Client asks one poemqd. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// askTimeout bounds one question whose context has no deadline; the broker answers most in milliseconds.
const askTimeout = 20 * time.Second

// New makes a Client of the broker behind the control socket.
func New(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Close frees idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// mostAnswer bounds an answer, octets: some 300,000 sockets.
const mostAnswer = 256 << 20

// Raw does method on path with body as JSON, nil for none, and gives the answer
// as it came. Errors tell what to do.
func (c *Client) Raw(ctx context.Context, method, path string, body any) ([]byte, error) {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askTimeout)
		defer cancel()
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://poemqd"+path, in)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("poemqd at %s: %w", c.socket, err)
	case len(answer) > mostAnswer:
		return nil, fmt.Errorf("poemqd at %s: the answer is longer than %d octets", c.socket, mostAnswer)
	case resp.StatusCode == http.StatusOK:
		return answer, nil
	}
	var f Failure
	if json.Unmarshal(answer, &f) != nil || f.Error == "" {
		f.Error = resp.Status // an older poemqd, which knows no such path
		if resp.StatusCode == http.StatusNotFound {
			f.Error = "does not know " + method + " " + path + ": it is older than this poemqctl"
		}
	}
	return nil, &Error{Status: resp.StatusCode, Socket: c.socket, Message: f.Error}
}

// Error is a broker's refusal.
type Error struct {
	Status  int // of HTTP
	Socket  string
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("poemqd at %s: %s", e.Socket, e.Message) }

// ErrNoBroker: nobody serves the control socket.
var ErrNoBroker = errors.New("no poemqd serves the control socket")

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w %s: it does not exist; start poemqd (systemctl start poemq, or poemqd serve), or name another with --control. A private broker of poemq-launch has none", ErrNoBroker, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w %s: it is left over from one that has ended; start poemqd (systemctl start poemq, or poemqd serve)", ErrNoBroker, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied: run poemqctl as root or as a member of the group poemq", c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("poemqd at %s does not answer: see its log, and whether the process is stopped", c.socket)
	}
	return fmt.Errorf("ask poemqd at %s: %w", c.socket, err)
}

// Get asks for path and decodes the answer.
func Get[T any](ctx context.Context, c *Client, path string) (answer T, err error) {
	return Do[T](ctx, c, http.MethodGet, path, nil)
}

// Do does method on path and decodes the answer.
func Do[T any](ctx context.Context, c *Client, method, path string, body any) (answer T, err error) {
	b, err := c.Raw(ctx, method, path, body)
	if err == nil {
		if err = json.Unmarshal(b, &answer); err != nil {
			err = fmt.Errorf("poemqd at %s: %w", c.socket, err)
		}
	}
	return answer, err
}
