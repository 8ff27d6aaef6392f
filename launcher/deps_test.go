package launcher

import (
	"os/exec"
	"strings"
	"testing"
)

// The launcher stands alone and small.
func TestImportsNothingBig(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".", "../cmd/poemq-launch").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const module = "github.com/poemq/poemq/"
	for _, dep := range strings.Fields(string(out)) {
		switch {
		case strings.HasPrefix(dep, module) && dep != module+"launcher" && dep != module+"launcher/filter" && dep != module+"cmd/poemq-launch",
			strings.HasPrefix(dep, "github.com/quic-go/"),
			dep == "net/http", dep == "crypto/tls", dep == "log/slog":
			t.Errorf("imports %s", dep)
		}
	}
}
