package config

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// value is what stands behind a key: a string, an int64, a bool, a []value, or
// another kind that no key takes.
type value struct {
	any
	line int
}

// kindOf names what v is, for errors.
func (v value) kindOf() string {
	switch v.any.(type) {
	case string:
		return "text"
	case int64:
		return "a number"
	case bool:
		return "true or false"
	case []value:
		return "a list"
	}
	return "something else"
}

func wrongKind(v value, want string) error {
	return fmt.Errorf("is %s, and takes %s", v.kindOf(), want)
}

func (v value) text() (string, error) {
	if s, ok := v.any.(string); ok {
		return s, nil
	}
	return "", wrongKind(v, `text, "…"`)
}

func (v value) boolean() (bool, error) {
	if b, ok := v.any.(bool); ok {
		return b, nil
	}
	return false, wrongKind(v, "true or false")
}

func (v value) number(least, most int64) (int64, error) {
	n, ok := v.any.(int64)
	if !ok {
		return 0, wrongKind(v, fmt.Sprintf("a number from %d to %d", least, most))
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%d is not from %d to %d", n, least, most)
	}
	return n, nil
}

// list gives each element of a list to f; a single value is a list of one.
// Errors have the element's line.
func (v value) list(f func(value) error) error {
	all, ok := v.any.([]value)
	if !ok {
		all = []value{v}
	}
	var errs []error
	for _, one := range all {
		if _, nested := one.any.([]value); nested {
			errs = append(errs, lineError{one.line, wrongKind(one, "single values in one list")})
		} else if err := f(one); err != nil {
			errs = append(errs, lineError{one.line, err})
		}
	}
	return errors.Join(errs...)
}

// lineError is an error about a line of the file that is being read.
type lineError struct {
	line int
	error
}

func (e lineError) Unwrap() error { return e.error }

func (v value) duration(least, most time.Duration) (time.Duration, error) {
	s, ok := v.any.(string)
	if !ok {
		return 0, wrongKind(v, `a duration with its unit, like "30s"`)
	}
	d, err := time.ParseDuration(s)
	if err != nil || strings.HasPrefix(s, "+") {
		return 0, fmt.Errorf(`%q is no duration like "300ms", "1m30s" or "2h"`, s)
	}
	if d < least || d > most {
		return 0, fmt.Errorf("%q is not from %v to %v", s, showDuration(least), showDuration(most))
	}
	return d, nil
}

// showDuration leaves out the units that are zero at the end: "15m", not "15m0s".
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeUnits = []struct {
	name  string
	shift uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

func (v value) size(least, most int64) (int64, error) {
	n, ok := v.any.(int64)
	if !ok {
		s, ok := v.any.(string)
		if !ok {
			return 0, wrongKind(v, `a size like 65536 or "64KiB"`)
		}
		var err error
		if n, err = parseSize(s); err != nil {
			return 0, err
		}
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%s is not from %s to %s", showSize(n), showSize(least), showSize(most))
	}
	return n, nil
}

func parseSize(s string) (int64, error) {
	digits, shift := s, uint(0)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, shift = rest, u.shift
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size: whole octets, or with KiB, MiB, GiB or TiB", s)
	}
	return int64(n) << shift, nil
}

func showSize(n int64) string {
	for _, u := range sizeUnits {
		if n > 0 && n&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// path is a file's or directory's absolute path, or empty.
func (v value) path() (string, error) {
	s, err := v.text()
	switch {
	case err != nil || s == "":
		return "", err
	case !filepath.IsAbs(s):
		return "", fmt.Errorf("%q does not begin with /", s)
	case strings.ContainsRune(s, 0):
		return "", fmt.Errorf("%q has a zero octet", s)
	}
	return s, nil
}
