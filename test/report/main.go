// Report runs "go test -json" with the arguments given and prints what a reader
// needs: one line a package, every skipped test with its reason, and the whole
// output of what failed. Its exit status is that of go test.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	Test       string
	ImportPath string
	Output     string
}

func main() {
	status, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		status = 1
	}
	os.Exit(status)
}

func run(args []string, out io.Writer) (status int, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if err := summarise(stdout, out); err != nil {
		return 0, err
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// summarise reads events and prints what matters of them.
func summarise(events io.Reader, out io.Writer) error {
	said := map[string][]string{} // output by package and test, until its result is known
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		id := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			said[id] = append(said[id], e.Output)
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "pass":
			if e.Test == "" {
				printSummary(out, said[id])
			}
			delete(said, id)
		case "skip":
			if e.Test != "" {
				fmt.Fprintf(out, "skip %s: %s\n", e.Test, reason(said[id]))
			} else {
				printSummary(out, said[id])
			}
			delete(said, id)
		case "fail":
			for _, line := range said[id] {
				if !strings.HasPrefix(line, "=== ") {
					fmt.Fprint(out, line)
				}
			}
			delete(said, id)
		}
	}
	return lines.Err()
}

// printSummary prints a package's last line: "ok …" or "? … [no test files]".
func printSummary(out io.Writer, said []string) {
	for _, line := range said {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
			fmt.Fprint(out, line)
		}
	}
}

// reason is what a test said before it skipped itself.
func reason(said []string) string {
	var words []string
	for _, line := range said {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "===") && !strings.HasPrefix(text, "---") {
			words = append(words, text)
		}
	}
	return strings.Join(words, " ")
}
