package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"strconv"
	"strings"

	"github.com/poemq/poemq/broker/policy"
)

// fields are the keys of one kind of table in lists.
type fields[T any] map[string]func(*T, value) error

// lists are the tables that may be written several times.
var lists = map[string]func(c *Config, t table, where string, fault func(int, string, error)){
	"rule": func(c *Config, t table, where string, fault func(int, string, error)) {
		r := policy.Rule{Where: where}
		if fill(&r, t, ruleFields, fault) {
			if err := r.Check(); err != nil {
				fault(t.line, "", err)
			}
			c.Rules = append(c.Rules, r)
		}
	},
	"allow": func(c *Config, t table, where string, fault func(int, string, error)) {
		a := Allow{Where: where}
		if fill(&a, t, allowFields, fault) {
			if len(a.Peers) == 0 || len(a.Ports) == 0 {
				fault(t.line, "", errors.New("needs peer and port"))
			}
			c.Allows = append(c.Allows, a)
		}
	},
	"expose": func(c *Config, t table, where string, fault func(int, string, error)) {
		e := Expose{Where: where}
		if fill(&e, t, exposeFields, fault) {
			if e.Listen.Port == 0 || e.To.Port == 0 {
				fault(t.line, "", errors.New("needs listen and to"))
			}
			c.Exposes = append(c.Exposes, e)
		}
	},
	"forward": func(c *Config, t table, where string, fault func(int, string, error)) {
		f := Forward{Where: where, Mode: policy.Require}
		if fill(&f, t, forwardFields, fault) {
			if f.Listen.Port == 0 || f.To.Port == 0 {
				fault(t.line, "", errors.New("needs listen and to"))
			}
			c.Forwards = append(c.Forwards, f)
		}
	},
}

// fill sets into's fields from t; false when something is wrong.
func fill[T any](into *T, t table, known fields[T], fault func(int, string, error)) bool {
	ok := true
	for _, e := range t.entries {
		set := known[e.key]
		if set == nil {
			fault(e.line, e.key, unknown(e.key, names(known)))
			ok = false
			continue
		}
		if err := set(into, e.value); err != nil {
			fault(e.line, e.key, err)
			ok = false
		}
	}
	return ok
}

var ruleFields = fields[policy.Rule]{
	"name":     func(r *policy.Rule, v value) (err error) { r.Name, err = v.text(); return err },
	"to":       func(r *policy.Rule, v value) error { return texts(v, policy.ParseTarget, &r.To) },
	"listen":   func(r *policy.Rule, v value) error { return texts(v, policy.ParseTarget, &r.Listen) },
	"port":     func(r *policy.Rule, v value) error { return ports(v, &r.Ports) },
	"uid":      func(r *policy.Rule, v value) error { return uids(v, &r.UIDs) },
	"cgroup":   func(r *policy.Rule, v value) error { return texts(v, policy.ParseCgroup, &r.Cgroups) },
	"session":  func(r *policy.Rule, v value) error { return texts(v, parseName, &r.Sessions) },
	"mode":     func(r *policy.Rule, v value) (err error) { r.Mode, err = mode(v); return err },
	"identity": func(r *policy.Rule, v value) error { return text(v, policy.ParseIdentity, &r.Identity) },
	"zero_rtt": func(r *policy.Rule, v value) (err error) { r.ZeroRTT, err = v.boolean(); return err },
	"alpn":     func(r *policy.Rule, v value) error { return text(v, policy.ParseALPN, &r.ALPN) },
	"framing":  func(r *policy.Rule, v value) error { return text(v, policy.ParseFraming, &r.Framing) },
}

var allowFields = fields[Allow]{
	"peer": func(a *Allow, v value) error { return texts(v, parsePeer, &a.Peers) },
	"port": func(a *Allow, v value) error { return ports(v, &a.Ports) },
}

var exposeFields = fields[Expose]{
	"listen":   func(e *Expose, v value) error { return text(v, listenOn("udp"), &e.Listen) },
	"to":       func(e *Expose, v value) error { return text(v, parseEndpoint, &e.To) },
	"identity": func(e *Expose, v value) error { return text(v, parsePeer, &e.Identity) },
}

var forwardFields = fields[Forward]{
	"listen":   func(f *Forward, v value) error { return text(v, listenOn("tcp"), &f.Listen) },
	"to":       func(f *Forward, v value) error { return text(v, parseEndpoint, &f.To) },
	"mode":     func(f *Forward, v value) (err error) { f.Mode, err = mode(v); return err },
	"identity": func(f *Forward, v value) error { return text(v, policy.ParseIdentity, &f.Identity) },
}

// text reads one value by parse.
func text[T any](v value, parse func(string) (T, error), into *T) error {
	s, err := v.text()
	if err != nil {
		return err
	}
	one, err := parse(s)
	if err == nil {
		*into = one
	}
	return err
}

// texts reads a list whose elements parse reads. An empty list would be a
// condition that nothing meets, or none at all: it is refused.
func texts[T any](v value, parse func(string) (T, error), into *[]T) error {
	return each(v, func(one value) error {
		var t T
		if err := text(one, parse, &t); err != nil {
			return err
		}
		*into = append(*into, t)
		return nil
	})
}

func each(v value, f func(value) error) error {
	if all, ok := v.any.([]value); ok && len(all) == 0 {
		return errors.New("is an empty list; leave the key out to mean everything")
	}
	return v.list(f)
}

func ports(v value, into *[]policy.Ports) error {
	return each(v, func(one value) error {
		s, isText := one.any.(string)
		if !isText {
			n, err := one.number(1, 65535)
			if err != nil {
				return err
			}
			s = strconv.FormatInt(n, 10)
		}
		p, err := policy.ParsePorts(s)
		*into = append(*into, p)
		return err
	})
}

const mostUID = 1<<32 - 2 // the one above means "no change" in setuid(2)

func uids(v value, into *[]uint32) error {
	return each(v, func(one value) error {
		name, isText := one.any.(string)
		if !isText {
			n, err := one.number(0, mostUID)
			*into = append(*into, uint32(n))
			return err
		}
		u, err := user.Lookup(name)
		if err != nil {
			return fmt.Errorf("%q is no user of this machine", name)
		}
		n, err := strconv.ParseUint(u.Uid, 10, 32)
		*into = append(*into, uint32(n))
		return err
	})
}

func parseName(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty")
	}
	return s, nil
}

// parsePeer reads a name in a peer's certificate, or a pattern of names.
func parsePeer(s string) (string, error) {
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		if t, err := policy.ParseTarget(rest); err != nil || t.Host == "" {
			return "", fmt.Errorf("%q is no pattern like *.web.example", s)
		}
		return s, nil
	}
	if s == "" || s == policy.Pin {
		return "", fmt.Errorf("%q is none of sha256:…, spiffe://…, a host name or a pattern like *.web.example", s)
	}
	return policy.ParseIdentity(s)
}

// Endpoint is a host, by address or name, and a port.
type Endpoint struct {
	Host string
	Port uint16
}

func (e Endpoint) String() string {
	if strings.Contains(e.Host, ":") {
		return "[" + e.Host + "]:" + strconv.Itoa(int(e.Port))
	}
	return e.Host + ":" + strconv.Itoa(int(e.Port))
}

func parseEndpoint(s string) (Endpoint, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() > 0 {
		return Endpoint{ap.Addr().String(), ap.Port()}, nil
	}
	host, port, _ := strings.Cut(s, ":")
	t, err1 := policy.ParseTarget(host)
	n, err2 := strconv.ParseUint(port, 10, 16)
	if err1 != nil || err2 != nil || t.Host == "" || n == 0 {
		return Endpoint{}, fmt.Errorf("%q is no host and port like 127.0.0.1:5432 or db.example.com:5432", s)
	}
	return Endpoint{t.Host, uint16(n)}, nil
}

// listenOn reads PROTOCOL/ADDRESS:PORT.
func listenOn(protocol string) func(string) (Endpoint, error) {
	return func(s string) (Endpoint, error) {
		rest, ok := strings.CutPrefix(s, protocol+"/")
		ap, err := netip.ParseAddrPort(rest)
		if !ok || err != nil || ap.Port() == 0 {
			return Endpoint{}, fmt.Errorf("%q is not like %s/0.0.0.0:5432", s, protocol)
		}
		return Endpoint{ap.Addr().String(), ap.Port()}, nil
	}
}
