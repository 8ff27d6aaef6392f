package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/poemq/poemq/quic/ca"
)

// caOptions are the flags of poemqctl ca and its commands.
type caOptions struct {
	dir    string
	name   string
	days   int
	ips    []string
	spiffe string
	out    string
	force  bool
	json   *bool
}

// made is what JSON tells of what a command has made.
type made struct {
	CA    string    `json:"ca"` // certificate of the CA
	CRL   string    `json:"crl"`
	Until time.Time `json:"until"`
	Cert  string    `json:"cert,omitempty"`
	Key   string    `json:"key,omitempty"`
	Entry *ca.Entry `json:"entry,omitempty"`
}

func caCommand(asJSON *bool) *cobra.Command {
	o := caOptions{json: asJSON}
	root := &cobra.Command{Use: "ca", Short: "Keep a small CA for a fleet (docs/identity.md)", Args: cobra.NoArgs}
	root.PersistentFlags().StringVar(&o.dir, "dir", envOr("POEMQ_CA_DIR", "/etc/poemq/ca"), "the CA's directory (env POEMQ_CA_DIR)")
	initialize := &cobra.Command{
		Use: "init", Short: "Make a CA", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.init(c.OutOrStdout()) },
	}
	initialize.Flags().StringVar(&o.name, "name", "poemq fleet CA", "common name of the CA")
	initialize.Flags().IntVar(&o.days, "days", 0, fmt.Sprintf("how long the CA is valid; 0 is %d", ca.CADays))
	issue := &cobra.Command{
		Use: "issue HOST...", Short: "Issue a certificate for a host, with all names given", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, hosts []string) error { return o.issue(c.OutOrStdout(), hosts) },
	}
	issue.Flags().StringArrayVar(&o.ips, "ip", nil, "an address that peers dial the host by; repeatable")
	issue.Flags().StringVar(&o.spiffe, "spiffe", "", "a SPIFFE ID, spiffe://TRUST-DOMAIN/PATH")
	issue.Flags().IntVar(&o.days, "days", 0, fmt.Sprintf("how long the certificate is valid; 0 is %d", ca.HostDays))
	issue.Flags().StringVar(&o.out, "out", ".", "directory for HOST.pem and HOST-key.pem")
	issue.Flags().BoolVar(&o.force, "force", false, "replace these files if they are there")
	revoke := &cobra.Command{
		Use: "revoke CERT|SERIAL", Short: "Revoke a certificate and sign a new CRL", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.revoke(c.OutOrStdout(), args[0]) },
	}
	revoke.Flags().IntVar(&o.days, "days", 0, fmt.Sprintf("how long the CRL is valid; 0 is %d", ca.CRLDays))
	crl := &cobra.Command{
		Use: "crl", Short: "Sign a new CRL", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.crl(c.OutOrStdout()) },
	}
	crl.Flags().IntVar(&o.days, "days", 0, fmt.Sprintf("how long the CRL is valid; 0 is %d", ca.CRLDays))
	list := &cobra.Command{
		Use: "list", Short: "List the certificates issued", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.list(c.OutOrStdout(), *asJSON) },
	}
	root.AddCommand(initialize, issue, revoke, crl, list)
	return root
}

func (o *caOptions) init(w io.Writer) error {
	c, err := ca.Init(o.dir, o.name, o.days)
	if err != nil {
		return err
	}
	if *o.json {
		return printJSON(w, made{CA: c.CertFile(), CRL: c.CRLFile(), Until: c.Certificate().NotAfter})
	}
	_, err = fmt.Fprintf(w, "made a CA in %s, valid until %s\n%s and %s go to every host; ca-key.pem stays here, and is secret\n",
		o.dir, day(c.Certificate().NotAfter), c.CertFile(), c.CRLFile())
	return err
}

func (o *caOptions) issue(w io.Writer, hosts []string) error {
	r := ca.Request{Hosts: hosts, SPIFFE: o.spiffe, Days: o.days}
	for _, s := range o.ips {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("--ip %q is no address; names are not looked up", s)
		}
		r.IPs = append(r.IPs, ip)
	}
	c, err := ca.Open(o.dir)
	if err != nil {
		return err
	}
	cert, key := filepath.Join(o.out, hosts[0]+".pem"), filepath.Join(o.out, hosts[0]+"-key.pem")
	if err := o.mayWrite(cert, key); err != nil {
		return err
	}
	issued, err := c.Issue(r)
	if err != nil {
		return err
	}
	if err := errors.Join(ca.WriteFile(key, issued.KeyPEM, 0o600), ca.WriteFile(cert, issued.CertPEM, 0o644)); err != nil {
		return fmt.Errorf("%w (serial %s was issued; revoke it)", err, issued.Entry.Serial)
	}
	if *o.json {
		return printJSON(w, made{CA: c.CertFile(), CRL: c.CRLFile(), Until: issued.Entry.NotAfter, Cert: cert, Key: key, Entry: &issued.Entry})
	}
	_, err = fmt.Fprintf(w, `issued serial %s for %s, valid until %s
copy %s, %s, %s and %s to the host, and say in its configuration, with the places they have there:

[tls]
cert = %q
key = %q
ca = %q
crl = [%q]
`, issued.Entry.Serial, strings.Join(issued.Entry.Names, ", "), day(issued.Entry.NotAfter),
		cert, key, c.CertFile(), c.CRLFile(),
		onHost(cert), onHost(key), onHost(c.CertFile()), onHost(c.CRLFile()))
	return err
}

// onHost is where a host is proposed to keep its copy.
func onHost(path string) string { return filepath.Join("/etc/poemq", filepath.Base(path)) }

// mayWrite finds out before a certificate is issued that has no place to go.
func (o *caOptions) mayWrite(paths ...string) error {
	if st, err := os.Stat(o.out); err != nil {
		return fmt.Errorf("--out: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("--out %s: not a directory", o.out)
	}
	for _, p := range paths {
		if _, err := os.Lstat(p); err == nil && !o.force {
			return fmt.Errorf("%s is there already: --force replaces it, --out names another directory", p)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (o *caOptions) revoke(w io.Writer, what string) error {
	c, err := ca.Open(o.dir)
	if err != nil {
		return err
	}
	e, err := c.Revoke(what, o.days)
	if err != nil {
		return err
	}
	if *o.json {
		return printJSON(w, made{CA: c.CertFile(), CRL: c.CRLFile(), Until: e.NotAfter, Entry: &e})
	}
	_, err = fmt.Fprintf(w, "revoked serial %s (%s) as of %s\ncopy %s to every host; those that watch their files take it at once\n",
		e.Serial, strings.Join(e.Names, ", "), e.Revoked.UTC().Format(time.DateTime), c.CRLFile())
	return err
}

func (o *caOptions) crl(w io.Writer) error {
	c, err := ca.Open(o.dir)
	if err != nil {
		return err
	}
	next, err := c.NewCRL(o.days)
	if err != nil {
		return err
	}
	if *o.json {
		return printJSON(w, made{CA: c.CertFile(), CRL: c.CRLFile(), Until: next})
	}
	_, err = fmt.Fprintf(w, "signed %s, valid until %s\ncopy it to every host\n", c.CRLFile(), day(next))
	return err
}

func (o *caOptions) list(w io.Writer, asJSON bool) error {
	c, err := ca.Open(o.dir)
	if err != nil {
		return err
	}
	entries, err := c.List()
	if err != nil {
		return err
	}
	if asJSON {
		if entries == nil {
			entries = []ca.Entry{}
		}
		return json.NewEncoder(w).Encode(entries)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SERIAL\tSTATE\tUNTIL\tNAMES")
	for _, e := range entries {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", e.Serial, e.State(time.Now()), day(e.NotAfter), strings.Join(e.Names, " "))
	}
	return tw.Flush()
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
