// Command poemqd is the broker: it answers the socket calls of launched
// programs and carries their bytes over QUIC.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is stamped in by the build (-ldflags -X).
var version = "devel"

func main() {
	root := &cobra.Command{
		Use:           "poemqd",
		Short:         "The poemq broker: programs speak TCP, the wire speaks QUIC",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	var o options
	o.flags(root.PersistentFlags())
	printConfig := root.Flags().Bool("print-config", false, "print the configuration in force, with where each value is from")
	root.RunE = func(c *cobra.Command, _ []string) error {
		if *printConfig {
			return o.printConfig(os.Stdout)
		}
		return c.Help()
	}
	root.AddCommand(serveCommand(&o), privateCommand(&o), checkConfigCommand(&o), versionCommand())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "poemqd:", err)
		os.Exit(1)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Println("poemqd", version) },
	}
}
