package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// completionTimeout is how long a user who has pressed Tab waits for names.
const completionTimeout = 2 * time.Second

// complete returns the names among those that list finds which begin as the user has begun. If the daemon does not answer
// there are none.
func (c *cli) complete(ctx context.Context, begun string, list func(d daemon, add func(string)) error) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	c.socket = strings.TrimPrefix(c.socket, "unix:")
	var names []cobra.Completion
	err := c.stream(ctx, func(d daemon) error {
		return list(d, func(name string) {
			if name != "" && strings.HasPrefix(name, begun) {
				names = append(names, name)
			}
		})
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

// completePorts completes the logical port's name of a port on this node.
func (c *cli) completePorts(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(cmd.Context(), begun, func(d daemon, add func(string)) error {
		return d.eachPort(func(p *offloadv1.Port) error {
			add(p.GetSpec().GetLogicalPort())
			if strings.Contains(begun, "/") {
				add(keyText(p.GetSpec().GetKey()))
			}
			return nil
		})
	})
}

// completeTwoPorts is completePorts for a command that takes two.
func (c *cli) completeTwoPorts(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completePorts(cmd, nil, begun)
}

// completeLogicalPorts completes the name of any logical port here: those have conntrack zones.
func (c *cli) completeLogicalPorts(cmd *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return c.complete(cmd.Context(), begun, func(d daemon, add func(string)) error {
		return pages(func(token string) ([]*offloadv1.Zone, string, error) {
			r, err := d.node.ListZones(d.ctx, &offloadv1.ListZonesRequest{PageToken: token})
			return r.GetZones(), r.GetNextPageToken(), err
		}, func(z *offloadv1.Zone) error {
			if o := z.GetOwner(); !strings.HasSuffix(o, "_dnat") && !strings.HasSuffix(o, "_snat") {
				add(o)
			}
			return nil
		})
	})
}

// completeDatapaths completes the name of a local datapath: each has logical flows in the first table of its egress pipeline,
// and there are few of them.
func (c *cli) completeDatapaths(cmd *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return c.complete(cmd.Context(), begun, func(d daemon, add func(string)) error {
		first := uint32(0)
		stream, err := d.flows.ListLogicalFlows(d.ctx, &offloadv1.ListLogicalFlowsRequest{
			Pipeline: offloadv1.Pipeline_PIPELINE_EGRESS, Table: &first,
		})
		if err != nil {
			return err
		}
		return received(stream.Recv, func(r *offloadv1.ListLogicalFlowsResponse) error {
			add(r.GetLogicalFlow().GetDatapathName())
			return nil
		})
	})
}
