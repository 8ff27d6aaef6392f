package ca

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"time"
)

// Entry is one line of the index.
type Entry struct {
	Serial   string    `json:"serial"` // hexadecimal, lower case
	Names    []string  `json:"names"`  // DNS names, addresses, URIs
	NotAfter time.Time `json:"not_after"`
	Revoked  time.Time `json:"revoked,omitzero"`
}

// State is "valid", "expired" or "revoked" at now.
func (e Entry) State(now time.Time) string {
	switch {
	case !e.Revoked.IsZero():
		return "revoked"
	case now.After(e.NotAfter):
		return "expired"
	}
	return "valid"
}

func entryOf(c *x509.Certificate) Entry {
	e := Entry{Serial: c.SerialNumber.Text(16), NotAfter: c.NotAfter.UTC()}
	e.Names = append(e.Names, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		e.Names = append(e.Names, ip.String())
	}
	for _, u := range c.URIs {
		e.Names = append(e.Names, u.String())
	}
	return e
}

// List tells what was issued, oldest first.
func (c *CA) List() ([]Entry, error) { return c.readIndex() }

func (c *CA) readIndex() ([]Entry, error) {
	b, err := os.ReadFile(c.path(indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("CA index %s is missing: without it nothing can be revoked; bring it back from a backup, or make it empty", c.path(indexFile))
	} else if err != nil {
		return nil, fmt.Errorf("CA index: %w", err)
	}
	entries, err := parseIndex(b)
	if err != nil {
		return nil, fmt.Errorf("CA index %s: %w", c.path(indexFile), err)
	}
	return entries, nil
}

func (c *CA) writeIndex(entries []Entry) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // ends each with a newline
	enc.SetEscapeHTML(false)
	for _, e := range entries {
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("CA index: %w", err)
		}
	}
	return WriteFile(c.path(indexFile), b.Bytes(), 0o600)
}

// parseIndex reads the lines; a damaged one is an error, for what is not known
// cannot be revoked.
func parseIndex(b []byte) ([]Entry, error) {
	var entries []Entry
	seen := map[string]bool{}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := bytes.TrimSpace(sc.Bytes())
		if len(line) == 0 {
			continue
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		serial, err := parseSerial(e.Serial)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if e.Serial = serial.Text(16); seen[e.Serial] {
			return nil, fmt.Errorf("line %d: serial %s twice", n, e.Serial)
		}
		seen[e.Serial] = true
		entries = append(entries, e)
	}
	return entries, sc.Err()
}

// parseSerial reads hexadecimal, with colons between octets if somebody copied
// it from openssl.
func parseSerial(s string) (*big.Int, error) {
	hex := strings.ReplaceAll(s, ":", "")
	if len(hex) == 0 || len(hex) > 40 || strings.Trim(hex, "0123456789abcdefABCDEF") != "" {
		return nil, fmt.Errorf("%q is no serial number: want up to 40 hexadecimal digits", s)
	}
	n, _ := new(big.Int).SetString(hex, 16)
	if n.Sign() == 0 {
		return nil, fmt.Errorf("%q is no serial number", s)
	}
	return n, nil
}
