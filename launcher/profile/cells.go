package profile

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/poemq/poemq/launcher/filter"
)

// A cell is a set of calls that all get the same answer. The cells of one call
// are disjoint, and together they are all that the base profile allows of it.
type cell struct {
	args   []specs.LinuxSeccompArg
	action specs.LinuxSeccompAction
	errno  *uint
}

// bound is what the base profile allows of an argument's lower 32 bits.
type bound struct {
	op    specs.LinuxSeccompOperator
	value uint64
}

// within tells whether all of the values lo to hi are allowed, and whether none
// is.
func (b bound) within(lo, hi uint64) (all, none bool) {
	switch b.op {
	case specs.OpEqualTo:
		return lo == b.value && hi == b.value, b.value < lo || b.value > hi
	case specs.OpNotEqual:
		return b.value < lo || b.value > hi, lo == b.value && hi == b.value
	case specs.OpLessThan:
		return hi < b.value, lo >= b.value
	case specs.OpLessEqual:
		return hi <= b.value, lo > b.value
	case specs.OpGreaterThan:
		return lo > b.value, hi <= b.value
	case specs.OpGreaterEqual:
		return lo >= b.value, hi < b.value
	}
	return true, false // no bound
}

// partition makes the cells of a call: rules are those of the call, all of them,
// base is what the base profile wants of its first argument.
func partition(rules []filter.Rule, base bound) ([]cell, error) {
	if base.op != "" && (len(rules) == 0 || len(rules[0].Conds) == 0 || first(rules) != 0) {
		return nil, fmt.Errorf("a condition of the base profile on an argument that no rule of ours looks at")
	}
	return split(nil, rules, base)
}

// split answers by the rules that are left when the conditions in path hold.
func split(path []specs.LinuxSeccompArg, rules []filter.Rule, base bound) ([]cell, error) {
	for _, r := range rules {
		if len(r.Conds) == 0 {
			return []cell{decided(path, r.Action)}, nil
		}
	}
	if len(rules) == 0 {
		return []cell{{args: path, action: specs.ActAllow}}, nil
	}
	arg := first(rules)
	if not, ok := negated(rules, arg); ok {
		return splitByNot(path, rules, arg, not)
	}
	mask, values, err := compared(rules, arg)
	if err != nil {
		return nil, err
	}
	var cells []cell
	add := func(m, v uint32, left []filter.Rule) error {
		more, err := split(with(path, arg, m, v), left, bound{})
		cells = append(cells, more...)
		return err
	}
	for _, v := range values {
		if all, _ := base.within(uint64(v), uint64(v)); all {
			if err := add(mask, v, holding(rules, arg, v)); err != nil {
				return nil, err
			}
		}
	}
	rest := slices.DeleteFunc(slices.Clone(rules), func(r filter.Rule) bool { return conditionOn(r, arg) != nil })
	err = others(mask, values, base, func(m, v uint32) error { return add(m, v, rest) })
	return cells, err
}

// splitByNot is split where rules ask for arg to be another value than not. The
// whole register is compared, as the launcher does.
func splitByNot(path []specs.LinuxSeccompArg, rules []filter.Rule, arg uint, not uint32) ([]cell, error) {
	var differs []filter.Rule
	for _, r := range rules {
		if c := conditionOn(r, arg); c != nil && c.Not {
			differs = append(differs, without(r, arg))
		}
	}
	if len(differs) != 1 || len(differs[0].Conds) != 0 {
		return nil, fmt.Errorf("%s: a rule with more conditions beside \"is not\"", rules[0].Call)
	}
	same := slices.DeleteFunc(slices.Clone(rules), func(r filter.Rule) bool {
		c := conditionOn(r, arg)
		return c != nil && c.Not
	})
	one := func(op specs.LinuxSeccompOperator) []specs.LinuxSeccompArg {
		return append(slices.Clone(path), specs.LinuxSeccompArg{Index: arg, Value: uint64(not), Op: op})
	}
	cells, err := split(one(specs.OpEqualTo), holding(same, arg, not), bound{})
	return append(cells, decided(one(specs.OpNotEqual), differs[0].Action)), err
}

// others covers every value of the mask's bits but the given ones, and but those
// that base does not allow, by as few comparisons as there can be: emit gets a
// mask and what is under it.
func others(mask uint32, values []uint32, base bound, emit func(m, v uint32) error) error {
	var cover func(m, v uint32) error
	cover = func(m, v uint32) error {
		hit := slices.ContainsFunc(values, func(x uint32) bool { return x&m == v })
		all, none := base.within(uint64(v), uint64(v|^m))
		switch {
		case none || m == mask && hit:
			return nil
		case !hit && all:
			return emit(m, v)
		}
		bit := uint32(1) << (31 - bits.LeadingZeros32(mask&^m))
		if err := cover(m|bit, v); err != nil {
			return err
		}
		return cover(m|bit, v|bit)
	}
	return cover(0, 0)
}

// with adds "arg and'ed with m is v"; no condition if m is 0.
func with(path []specs.LinuxSeccompArg, arg uint, m, v uint32) []specs.LinuxSeccompArg {
	path = slices.Clone(path)
	if m == 0 {
		return path
	}
	return append(path, specs.LinuxSeccompArg{Index: arg, Value: uint64(m), ValueTwo: uint64(v), Op: specs.OpMaskedEqual})
}

// first is the lowest argument that a rule looks at.
func first(rules []filter.Rule) uint {
	low := uint(6)
	for _, r := range rules {
		for _, c := range r.Conds {
			low = min(low, c.Arg)
		}
	}
	return low
}

func conditionOn(r filter.Rule, arg uint) *filter.Cond {
	for i := range r.Conds {
		if r.Conds[i].Arg == arg {
			return &r.Conds[i]
		}
	}
	return nil
}

func without(r filter.Rule, arg uint) filter.Rule {
	r.Conds = slices.DeleteFunc(slices.Clone(r.Conds), func(c filter.Cond) bool { return c.Arg == arg })
	return r
}

// holding are the rules that may still hold when arg is v, less their
// conditions on it.
func holding(rules []filter.Rule, arg uint, v uint32) (left []filter.Rule) {
	for _, r := range rules {
		if c := conditionOn(r, arg); c == nil || c.Value == v {
			left = append(left, without(r, arg))
		}
	}
	return left
}

func negated(rules []filter.Rule, arg uint) (uint32, bool) {
	for _, r := range rules {
		if c := conditionOn(r, arg); c != nil && c.Not {
			return c.Value, true
		}
	}
	return 0, false
}

// compared are the values that arg is compared with, all under one mask.
func compared(rules []filter.Rule, arg uint) (mask uint32, values []uint32, err error) {
	for _, r := range rules {
		c := conditionOn(r, arg)
		if c == nil {
			continue
		}
		if mask != 0 && c.Mask != mask {
			return 0, nil, fmt.Errorf("%s: argument %d is compared under different masks", r.Call, arg)
		}
		mask = c.Mask
		if !slices.Contains(values, c.Value) {
			values = append(values, c.Value)
		}
	}
	return mask, values, nil
}
