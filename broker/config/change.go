package config

import (
	"reflect"
	"slices"
)

// AtRestart lists the settings that differ in next and that a running broker
// keeps until it is started anew.
func (c *Config) AtRestart(next *Config) []string {
	var all []string
	for i := range keys {
		if k := &keys[i]; !k.live && k.show(c) != k.show(next) {
			all = append(all, k.name)
		}
	}
	if !reflect.DeepEqual(noLines(c.Allows), noLines(next.Allows)) {
		all = append(all, "allow")
	}
	return all
}

// noLines is list without where each was written: a line above moves it.
func noLines[T any](list []T) []T {
	list = slices.Clone(list)
	for i := range list {
		reflect.ValueOf(&list[i]).Elem().FieldByName("Where").SetString("")
	}
	return list
}
