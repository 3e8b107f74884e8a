package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit",
		Short: "list what does not fit together: what nobody owns, and what is missing of what somebody owns; exit code 1 if there is something",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := newList(c, "LeftoverList", leftoverColumns)
			err := c.call(cmd.Context(), func(d daemon) error { return listed(l, d.leftovers) })
			if err == nil && l.n > 0 {
				err = errNegative
			}
			return err
		},
	}
}

func (d daemon) leftovers(token string) ([]*offloadv1.Leftover, string, error) {
	r, err := d.devices.ListLeftovers(d.ctx, &offloadv1.ListLeftoversRequest{PageToken: token})
	return r.GetLeftovers(), r.GetNextPageToken(), err
}

var leftoverColumns = []column[*offloadv1.Leftover]{
	{name: "WHERE", value: (*offloadv1.Leftover).GetWhere},
	{name: "NAME", value: (*offloadv1.Leftover).GetName},
	{name: "CAUSE", value: func(l *offloadv1.Leftover) string { return strings.ReplaceAll(l.GetCause(), "\n", " ") }},
	{name: "REMEDY", wide: true, value: func(l *offloadv1.Leftover) string { return cmp.Or(l.GetRemedy(), "-") }},
}

func (c *cli) gcCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "gc --dry-run",
		Short: "show how to clean up what audit finds, as commands for a shell",
		Long: `gc prints a command for each finding of audit that can be removed without harm. It executes none of them: the daemon itself cleans up
what is certainly its own, so what is left is for somebody who has looked at it.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dryRun {
				return usageError{errors.New("gc: it only shows what to do: give --dry-run, and run what it prints if that is right")}
			}
			if c.structured() {
				l := newList(c, "LeftoverList", leftoverColumns)
				return c.call(cmd.Context(), func(d daemon) error { return listed(l, d.leftovers) })
			}
			return c.call(cmd.Context(), func(d daemon) error {
				return pages(d.leftovers, func(l *offloadv1.Leftover) error {
					line := fmt.Sprintf("# %s %s: %s", l.GetWhere(), l.GetName(), l.GetCause())
					fmt.Fprintln(c.stdout, strings.ReplaceAll(line, "\n", " ")) // it stays a comment
					if l.GetRemedy() != "" {
						fmt.Fprintln(c.stdout, l.GetRemedy())
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show it; there is nothing else that gc does")
	return cmd
}
