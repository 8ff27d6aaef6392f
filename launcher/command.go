package launcher

import (
	"errors"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is what execvp(3) searches when PATH is not set.
const defaultPath = "/bin:/usr/bin"

// A command is the program to become.
type command struct {
	name  string   // as given
	paths []string // to try in turn
	args  []string
	env   []string
}

// findCommand looks args[0] up as execvp(3) does. It fails early, before any
// filter or broker, if no candidate looks executable.
func findCommand(args, env []string) (command, error) {
	c := command{name: args[0], args: args, env: env}
	c.paths = candidates(c.name, env)
	err := error(unix.ENOENT)
	for _, p := range c.paths {
		switch e := executable(p); {
		case e == nil:
			return c, nil
		case errors.Is(e, unix.EACCES):
			err = e
		}
	}
	return command{}, c.failed(err)
}

// candidates are the paths execvp(3) tries. An empty element of PATH is the
// working directory.
func candidates(name string, env []string) []string {
	if name == "" {
		return nil
	}
	if strings.Contains(name, "/") {
		return []string{name}
	}
	list := defaultPath
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			list = p
			break // getenv(3) too takes the first
		}
	}
	var paths []string
	for _, dir := range strings.Split(list, ":") {
		if dir == "" {
			paths = append(paths, name)
		} else {
			paths = append(paths, dir+"/"+name)
		}
	}
	return paths
}

// executable gives the error that execve(2) would, as far as the file's type
// and mode tell.
func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS)
}

// exec becomes the program. It returns only if that failed; the calling thread
// is then good for nothing but telling so.
func (c command) exec(in inherited) error {
	if err := in.restore(); err != nil {
		return err
	}
	err := error(unix.ENOENT)
	for _, p := range c.paths {
		e := syscall.Exec(p, c.args, c.env)
		switch {
		case errors.Is(e, unix.EACCES):
			err = e
		case errors.Is(e, unix.ENOENT) || errors.Is(e, unix.ENOTDIR) || errors.Is(e, unix.ESTALE) ||
			errors.Is(e, unix.ENODEV) || errors.Is(e, unix.ETIMEDOUT):
		default:
			return c.failed(e)
		}
	}
	return c.failed(err)
}

func (c command) failed(err error) error {
	e := &Error{Status: StatusNotExecutable, What: "not executable", On: c.name, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		e.Status, e.What = StatusNotFound, "command not found"
		e.Hint = "check its name and PATH"
		if len(c.paths) > 0 && executable(c.paths[0]) == nil {
			e.Why, e.Hint = "its interpreter or loader is missing", "see its first line, or file(1)"
		}
	case errors.Is(err, unix.ENOEXEC):
		// As env(1) and timeout(1) do, and unlike execvp(3), no shell is tried.
		e.What, e.On = c.name, ""
		e.Why, e.Err = "not executable: exec format error", nil
		e.Hint = "a script needs a #! line, a binary this machine's architecture"
	case errors.Is(err, unix.EACCES):
		e.Hint = "check the file's mode and its directories'"
	}
	return e
}

// base is the command's name for the broker's log.
func (c command) base() string { return path.Base(c.name) }
