package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// unknown is the error for a name that is none of known, with the nearest.
func unknown(name string, known []string) error {
	best, least := "", max(2, len(name)/3)+1
	for _, k := range known {
		d := distance(name, k)
		// Most mistakes leave the section out, or have another one.
		if _, last, ok := strings.Cut(k, "."); ok && last == name[strings.LastIndex(name, ".")+1:] {
			d = min(d, 1)
		}
		if d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return errors.New("unknown key")
	}
	return fmt.Errorf("unknown key; did you mean %s?", best)
}

// distance is how many characters must be changed, put in or taken out
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// names are m's keys, sorted.
func names[V any, M ~map[string]V](m M) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func keyNames() []string {
	all := make([]string, len(keys))
	for i := range keys {
		all[i] = keys[i].name
	}
	return all
}

// sections are the names of tables, in order.
func sections() []string {
	var all []string
	for i := range keys {
		s, _, _ := strings.Cut(keys[i].name, ".")
		if len(all) == 0 || all[len(all)-1] != s {
			all = append(all, s)
		}
	}
	return all
}
