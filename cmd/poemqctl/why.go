package main

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
)

// whyFlags say for whom and what.
type whyFlags struct {
	uid                    uint32
	listen, noProbe        bool
	session, cgroup, asked string
}

func whyCommand(o *options) *cobra.Command {
	var f whyFlags
	c := &cobra.Command{
		Use: "why HOST:PORT", Short: "Tell how a connection would be carried, which rule says so, and what a probe finds now",
		Long: "Tell how a connection would be carried: which rule decides, what is remembered of the\n" +
			"fallback, and what a probe by poemqd finds now. By QUIC no program at the far end\n" +
			"learns of the probe; by TCP its server sees a connection that ends at once.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.why(c, o, args[0]) },
	}
	c.Flags().Uint32Var(&f.uid, "uid", uint32(os.Getuid()), "the program's user")
	c.Flags().BoolVar(&f.listen, "listen", false, "of a port that is listened on")
	c.Flags().StringVar(&f.session, "session", "", "the program's or container's name")
	c.Flags().StringVar(&f.cgroup, "cgroup", "", "the program's cgroup")
	c.Flags().StringVar(&f.asked, "quic", "", "what poemq-launch --quic asks for")
	c.Flags().BoolVar(&f.noProbe, "no-probe", false, "send nothing")
	return c
}

func (f *whyFlags) why(c *cobra.Command, o *options, hostPort string) error {
	addrs, err := destinations(c.Context(), hostPort)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		err := show(c, o, "GET", "/v1/why?"+f.query(addr).Encode(), nil, func(w io.Writer, a api.Why) error { return printWhy(w, addr, a) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *whyFlags) query(addr netip.AddrPort) url.Values {
	q := url.Values{"uid": {strconv.FormatUint(uint64(f.uid), 10)}, "session": {f.session}, "cgroup": {f.cgroup}, "asked": {f.asked}}
	switch {
	case f.listen:
		q.Set("listen", addr.String())
	default:
		q.Set("to", addr.String())
		q.Set("probe", strconv.FormatBool(!f.noProbe))
	}
	return q
}

func printWhy(w io.Writer, addr netip.AddrPort, a api.Why) error {
	by := a.By
	if a.Identity != "" {
		by += ", identity " + a.Identity
	}
	_, err := fmt.Fprintf(w, "%v: %s (%s)\n", addr, a.Mode, by)
	for _, r := range a.Remembered {
		if err == nil {
			_, err = fmt.Fprintf(w, "  remembered  TCP at once for another %v: %s, since %s\n",
				time.Until(r.Expires).Round(time.Second), r.Reason, r.Since.Local().Format(time.TimeOnly))
		}
	}
	if a.Probe == nil || err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "  probe QUIC  %s\n  probe TCP   %s\n  now         %s\n", probed(a.Probe.QUIC), probed(a.Probe.TCP), a.Probe.Verdict)
	return err
}

func probed(r api.ProbeResult) string {
	switch {
	case r.Answer == "skipped":
		return "skipped: " + r.Error
	case r.Answer != "ok":
		return fmt.Sprintf("failed after %s: %s", millis(r.Took), r.Error)
	case r.Reused:
		return fmt.Sprintf("ok, connected already, RTT %s, %s", millis(r.RTT), r.Identity)
	case r.Version != "":
		return fmt.Sprintf("ok in %s, RTT %s, %s, %s", millis(r.Took), millis(r.RTT), r.Version, r.Identity)
	}
	return "ok in " + millis(r.Took)
}
