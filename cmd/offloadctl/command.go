package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// group returns a command that only has others.
func group(name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("%s %q: no such command; see offloadctl %s --help", name, args[0], name)}
			}
			_ = cmd.Help()
			return usageError{errors.New(name + ": what?")}
		},
	}
}

// usage makes an argument's error one of usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%s: %w", strings.TrimPrefix(cmd.CommandPath(), "offloadctl "), err)}
		}
		return nil
	}
}

// mustComplete gives a flag the values that a shell may complete.
func mustComplete(cmd *cobra.Command, flag string, values ...string) {
	completeFlag(cmd, flag, fixed(values))
}

// fixed completes to those of values that begin as the user has begun.
func fixed(values []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var fit []cobra.Completion
		for _, v := range values {
			if strings.HasPrefix(v, begun) {
				fit = append(fit, v)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp
	}
}

func completeFlag(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("offloadctl: " + err.Error()) // no such flag
	}
}
