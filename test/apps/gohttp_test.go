package apps

import (
	"debug/elf"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

func TestGoStaticHTTP(t *testing.T) {
	r := rig.New(t)
	program := r.Build("./test/programs/gohttp")
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Fatalf("not static: %v %v", libs, err)
	}
	port := r.Port()
	server := r.Command(program, "server", port).Start()
	server.Says("listening")
	if got, want := r.Command(program, "client", port, 200).Output(), "200 bodies right\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
