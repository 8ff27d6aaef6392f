package apps

import (
	"testing"

	"github.com/poemq/poemq/test/rig"
)

func TestJavaSockets(t *testing.T) { java(t, "Sockets", "30 answers right\n") }

func TestJavaNIO(t *testing.T) { java(t, "Nio", "50 conversations right\n") }

func java(t *testing.T, class, want string) {
	r := rig.New(t, "java", "javac")
	port := r.Port()
	compile := r.Command("javac", "-d", r.Dir, testdata(class+".java"))
	compile.Outside = true
	compile.Output()
	run := func(role string) *rig.Cmd {
		return r.Command("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", r.Dir, class, role, port)
	}
	server := run("server").Start()
	server.Says("listening")
	if got := run("client").Output(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
