package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/quic"
)

// Config is what a Server stands on.
type Config struct {
	Broker  *broker.Broker
	Host    *quic.Host
	Log     *slog.Logger
	Version string
	// Level is the log's, to look at and to change.
	Level *slog.LevelVar
	// Reload reads the configuration again, all or nothing.
	Reload func() (api.Reloaded, error)
	// Drain takes no more sessions and returns when nothing is open any more, or
	// the deadline has passed; End is called when that was answered.
	Drain func(deadline time.Duration) api.Drained
	End   func()
}

// Route is one thing that can be asked for.
type Route struct {
	Method, Path string // as http.ServeMux has them
	About        string // in one line, for docs/api.md
	// All is that only root, the broker's user and the group may. Else answer
	// has to look at whom it is for.
	All    bool
	Answer func(*Request) (any, error)
	After  func() // once that was sent; may be nil
}

// Request is an http.Request with who asks.
type Request struct {
	*http.Request
	peer *peer
}

// Sees reports that who asks may look at what belongs to uid.
func (r *Request) Sees(uid uint32) bool { return r.peer.sees(uid) }

// All reports that who asks may see and change everything.
func (r *Request) All() bool { return r.peer.all() }

// UID is who asks.
func (r *Request) UID() uint32 { return r.peer.UID }

// Status is an error with its status of HTTP.
type Status struct {
	Code int
	Err  error
}

func (s *Status) Error() string { return s.Err.Error() }
func (s *Status) Unwrap() error { return s.Err }

func refuse(code int, format string, args ...any) error {
	return &Status{code, fmt.Errorf(format, args...)}
}

// Serve answers at l until the function it gives is called, which closes l.
func Serve(l net.Listener, c Config) (stop func()) {
	return serve(l, c, newAuthority(Group))
}

func serve(l net.Listener, c Config, a *authority) (stop func()) {
	s := &server{Config: c}
	h := &http.Server{
		Handler: s.mux(), ConnContext: known, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := h.Serve(&doorman{Listener: l, trusts: a}); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("control socket", "error", err)
		}
	}()
	return func() { h.Close() }
}

type server struct{ Config }

func (s *server) mux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, hr *http.Request) { s.handle(w, hr, r) })
	}
	mux.HandleFunc("GET /debug/pprof/", s.forAll(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/profile", s.forAll(pprof.Profile))
	return mux
}

func peerOf(r *http.Request) *peer {
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		return p
	}
	return &peer{err: errors.New("it is not known who asks")}
}

// mostBody bounds a request's body, octets.
const mostBody = 64 << 10

func (s *server) handle(w http.ResponseWriter, hr *http.Request, r Route) {
	p := peerOf(hr)
	hr.Body = http.MaxBytesReader(w, hr.Body, mostBody)
	answer, err := func() (any, error) {
		switch {
		case p.err != nil:
			return nil, refuse(http.StatusForbidden, "it is not known who asks: %w", p.err)
		case r.All && !p.all():
			return nil, refuse(http.StatusForbidden, "%s %s is for root and members of the group %s; you are uid %d", r.Method, r.Path, Group, p.UID)
		}
		return r.Answer(&Request{hr, p})
	}()
	code := http.StatusOK
	if err != nil {
		code = http.StatusBadRequest
		if st, ok := errors.AsType[*Status](err); ok {
			code = st.Code
		}
		answer = api.Failure{Error: err.Error()}
	}
	if r.Method != http.MethodGet {
		level := slog.LevelInfo
		if !p.all() { // who could fill the log
			level = slog.LevelDebug
		}
		s.Log.Log(hr.Context(), level, "control", "do", r.Method+" "+hr.URL.RequestURI(), "uid", p.UID, "pid", p.PID, "status", code)
	}
	body, err := json.Marshal(answer) // with no lock held, and before a byte is sent
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
		s.Log.Error("control socket", "path", r.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(append(body, '\n')); err != nil {
		s.Log.Debug("control socket", "error", err)
	}
	if r.After != nil && code == http.StatusOK {
		_ = http.NewResponseController(w).Flush()
		r.After()
	}
}

// forAll is for handlers of others, which answer those who may everything.
func (s *server) forAll(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p := peerOf(r); !p.all() {
			http.Error(w, "for root and the group "+Group+" only", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}
