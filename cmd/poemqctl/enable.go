package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/poemq/poemq/cmd/poemqctl/internal/dropin"
	"github.com/spf13/cobra"
)

// serviceUnits is what enable and disable work on.
type serviceUnits struct {
	user, runtime, dryRun, now bool
	launch, broker, quic       string
	asJSON                     *bool
}

func (s *serviceUnits) flags(c *cobra.Command) {
	c.Flags().BoolVar(&s.user, "user", false, "units of your own systemd")
	c.Flags().BoolVar(&s.runtime, "runtime", false, "until the next boot only")
	c.Flags().BoolVar(&s.dryRun, "dry-run", false, "show, and change nothing")
	c.Flags().BoolVar(&s.now, "now", false, "restart the unit if it runs")
}

func enableCommand(asJSON *bool) *cobra.Command {
	s := &serviceUnits{asJSON: asJSON}
	c := &cobra.Command{
		Use: "enable UNIT…", Short: "Put services of systemd under poemq, by a drop-in beside the unit", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return s.each(c.Context(), args, s.enable) },
	}
	s.flags(c)
	c.Flags().StringVar(&s.launch, "launch", "", "poemq-launch's `PATH` (default: beside this program, or where packages put it)")
	c.Flags().StringVar(&s.broker, "broker", "", "the broker's `SOCKET`, if it is not the usual one")
	c.Flags().StringVar(&s.quic, "quic", "", "require or prefer, where no rule of the broker's says otherwise")
	return c
}

func disableCommand(asJSON *bool) *cobra.Command {
	s := &serviceUnits{asJSON: asJSON}
	c := &cobra.Command{
		Use: "disable UNIT…", Short: "Take services out from under poemq again", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return s.each(c.Context(), args, s.disable) },
	}
	s.flags(c)
	return c
}

// changed is what became of a unit.
type changed struct {
	Unit    string   `json:"unit"`
	File    string   `json:"file"`
	Action  string   `json:"action"` // written, removed, unchanged, would be written, would be removed
	Text    string   `json:"text,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Restart bool     `json:"restart_needed"`
}

// each changes every unit, has systemd read its files again, and tells.
func (s *serviceUnits) each(ctx context.Context, args []string, f func(context.Context, string) (changed, error)) error {
	var all []changed
	for _, arg := range args {
		name, err := dropin.Name(arg)
		if err != nil {
			return err
		}
		c, err := f(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, c)
	}
	if !s.dryRun {
		if _, err := s.systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
		for i, c := range all {
			if s.now && c.Action != "unchanged" {
				if _, err := s.systemctl(ctx, "try-restart", c.Unit); err != nil {
					return err
				}
				all[i].Restart = false
			}
		}
	}
	return s.print(os.Stdout, all)
}

func (s *serviceUnits) print(w io.Writer, all []changed) error {
	if *s.asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(map[string][]changed{"units": all})
	}
	for _, c := range all {
		fmt.Fprintf(w, "%s: %s\n", c.File, c.Action)
		for line := range strings.Lines(c.Text) {
			fmt.Fprint(w, "  ", line)
		}
		if c.Restart {
			how := "systemctl "
			if s.user {
				how += "--user "
			}
			fmt.Fprintf(w, "It counts from the next start on: %srestart %s\n", how, c.Unit)
		}
	}
	return nil
}

func (s *serviceUnits) enable(ctx context.Context, name string) (changed, error) {
	u, err := s.unit(ctx, name)
	if err != nil {
		return changed{}, err
	}
	o := dropin.Options{Launch: s.launch, Socket: s.broker, Quic: s.quic, User: s.user}
	if o.Launch == "" {
		if o.Launch, err = findLaunch(); err != nil {
			return changed{}, err
		}
	}
	if s.user && o.Socket == "" {
		o.Socket = "%t/poemq/broker.sock"
	}
	text, notes, err := dropin.Text(u, o)
	if err != nil {
		return changed{}, err
	}
	c := changed{Unit: name, File: s.file(name), Action: "written", Text: text, Notes: notes, Restart: true}
	old, err := os.ReadFile(c.File)
	switch {
	case err == nil && string(old) == text:
		c.Action, c.Restart = "unchanged", false
		return c, nil
	case err == nil && !bytes.HasPrefix(old, []byte(dropin.Marker)):
		return changed{}, fmt.Errorf("%s is there and not by poemqctl: move it away", c.File)
	case s.dryRun:
		c.Action, c.Restart = "would be written", false
		return c, nil
	}
	return c, writeUnitFile(c.File, text)
}

// writeUnitFile writes it whole or not at all.
func writeUnitFile(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".poemq-*")
	if err != nil {
		return err
	}
	_, err = temp.WriteString(text)
	err = errors.Join(err, temp.Chmod(0o644), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		os.Remove(temp.Name())
	}
	return err
}

func (s *serviceUnits) disable(_ context.Context, name string) (changed, error) {
	c := changed{Unit: name, File: s.file(name), Action: "removed", Restart: true}
	old, err := os.ReadFile(c.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Action, c.Restart = "unchanged", false
		return c, nil
	case err != nil:
		return c, err
	case !bytes.HasPrefix(old, []byte(dropin.Marker)):
		return c, fmt.Errorf("%s is not by poemqctl, and stays", c.File)
	case s.dryRun:
		c.Action, c.Restart = "would be removed", false
		return c, nil
	}
	err = os.Remove(c.File)
	_ = os.Remove(filepath.Dir(c.File)) // if nothing else is in it
	return c, err
}

// file is where the drop-in is.
func (s *serviceUnits) file(name string) string {
	dir := "/etc/systemd/system"
	switch {
	case s.user && s.runtime:
		dir = filepath.Join(envOr("XDG_RUNTIME_DIR", fmt.Sprintf("/run/user/%d", os.Getuid())), "systemd/user")
	case s.user:
		dir = filepath.Join(envOr("XDG_CONFIG_HOME", filepath.Join(os.Getenv("HOME"), ".config")), "systemd/user")
	case s.runtime:
		dir = "/run/systemd/system"
	}
	return filepath.Join(dir, name+".d", "50-poemq.conf")
}

// shown are the properties that dropin asks for.
const shown = "Id,LoadState,LoadError,FragmentPath,DropInPaths,Type,User,DynamicUser,SupplementaryGroups,RestrictAddressFamilies,SystemCallFilter," +
	"NoNewPrivileges,RootDirectory,RootImage,IPAddressDeny,IPIngressFilterPath,IPEgressFilterPath,RestrictNetworkInterfaces,SocketBindDeny,Sockets"

// unit reads what systemd knows, and from the unit's files what it would not
// show as it was written.
func (s *serviceUnits) unit(ctx context.Context, name string) (dropin.Unit, error) {
	out, err := s.systemctl(ctx, "show", "-p", shown, "--", name)
	if err != nil {
		return dropin.Unit{}, err
	}
	u := dropin.Unit{Name: name, Properties: make(map[string]string)}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		u.Properties[key] = value
	}
	if u.Properties["LoadState"] != "loaded" {
		return u, fmt.Errorf("systemd says that it is %s %s", u.Properties["LoadState"], u.Properties["LoadError"])
	}
	files := append([]string{u.Properties["FragmentPath"]}, strings.Fields(u.Properties["DropInPaths"])...)
	for _, file := range files {
		if file == "" || file == s.file(name) {
			continue
		}
		if u.ExecStart, err = execStart(file, u.ExecStart); err != nil {
			return u, err
		}
	}
	return u, nil
}

// execStart adds what file says of ExecStart=; an empty value begins anew.
func execStart(file string, before []string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, o := range options {
		switch {
		case o.Section != "Service" || o.Name != "ExecStart":
		case strings.TrimSpace(o.Value) == "":
			before = nil
		default:
			before = append(before, joined(o.Value))
		}
	}
	return before, nil
}

// joined is a value that a backslash continued, on one line.
func joined(value string) string {
	return strings.Join(strings.FieldsFunc(strings.ReplaceAll(value, "\\\n", "\n"), func(r rune) bool { return r == '\n' }), " ")
}

func (s *serviceUnits) systemctl(ctx context.Context, args ...string) (string, error) {
	if s.user {
		args = append([]string{"--user"}, args...)
	}
	c := exec.CommandContext(ctx, "systemctl", args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return string(out), nil
}

// findLaunch is the path of poemq-launch as units shall have it.
func findLaunch() (string, error) {
	places := []string{"/usr/bin/poemq-launch", "/usr/local/bin/poemq-launch"}
	if exe, err := os.Executable(); err == nil {
		places = append([]string{filepath.Join(filepath.Dir(exe), "poemq-launch")}, places...)
	}
	for _, p := range places {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("poemq-launch is in none of %s; name it with --launch", strings.Join(places, ", "))
}
