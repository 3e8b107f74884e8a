package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) getCommand() *cobra.Command {
	get := group("get", "list ports, flows, counters, chassis, tunnels, zones, devices, functions or pools")
	get.AddCommand(c.deviceLists()...)
	get.AddCommand(c.getPortsCommand(), c.getFlowsCommand(), c.getCountersCommand(),
		&cobra.Command{
			Use: "chassis", Short: "list the chassis of the deployment that this one sees", Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				l := newList(c, "ChassisList", chassisColumns)
				return c.call(cmd.Context(), func(d daemon) error {
					return listed(l, func(token string) ([]*offloadv1.Chassis, string, error) {
						r, err := d.node.ListChassis(d.ctx, &offloadv1.ListChassisRequest{PageToken: token})
						return r.GetChassis(), r.GetNextPageToken(), err
					})
				})
			},
		},
		&cobra.Command{
			Use: "tunnels", Aliases: []string{"tunnel"}, Short: "list the tunnels to other chassis", Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				l := newList(c, "TunnelList", tunnelColumns)
				return c.call(cmd.Context(), func(d daemon) error {
					return listed(l, func(token string) ([]*offloadv1.Tunnel, string, error) {
						r, err := d.node.ListTunnels(d.ctx, &offloadv1.ListTunnelsRequest{PageToken: token})
						return r.GetTunnels(), r.GetNextPageToken(), err
					})
				})
			},
		},
		&cobra.Command{
			Use: "zones", Aliases: []string{"zone"}, Short: "list the conntrack zones in use", Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				l := newList(c, "ZoneList", zoneColumns)
				return c.call(cmd.Context(), func(d daemon) error {
					return listed(l, func(token string) ([]*offloadv1.Zone, string, error) {
						r, err := d.node.ListZones(d.ctx, &offloadv1.ListZonesRequest{PageToken: token})
						return r.GetZones(), r.GetNextPageToken(), err
					})
				})
			},
		})
	return get
}

// listed fills a list with all pages and ends it.
func listed[T interface{ fmt.Stringer }, L interface {
	add(T) error
	end()
}](l L, fetch func(token string) ([]T, string, error)) error {
	if err := pages(fetch, l.add); err != nil {
		return err
	}
	l.end()
	return nil
}

var chassisColumns = []column[*offloadv1.Chassis]{
	{name: "NAME", value: (*offloadv1.Chassis).GetName},
	{name: "HOSTNAME", value: (*offloadv1.Chassis).GetHostname},
	{name: "LOCAL", value: func(c *offloadv1.Chassis) string { return yesNo(c.GetLocal()) }},
	{name: "NB-CFG", value: func(c *offloadv1.Chassis) string { return fmt.Sprint(c.GetNbCfg()) }},
	{name: "ENCAPS", value: func(c *offloadv1.Chassis) string {
		var encaps []string
		for _, e := range c.GetEncaps() {
			encaps = append(encaps, e.GetType()+":"+e.GetIp())
		}
		return strings.Join(encaps, ",")
	}},
	{name: "BRIDGE-MAPPINGS", wide: true, value: func(c *offloadv1.Chassis) string { return cmp.Or(c.GetBridgeMappings(), "-") }},
}

var tunnelColumns = []column[*offloadv1.Tunnel]{
	{name: "INTERFACE", value: (*offloadv1.Tunnel).GetInterface},
	{name: "CHASSIS", value: (*offloadv1.Tunnel).GetChassis},
	{name: "TYPE", value: (*offloadv1.Tunnel).GetType},
	{name: "REMOTE-IP", value: (*offloadv1.Tunnel).GetRemoteIp},
	{name: "LOCAL-IP", wide: true, value: func(t *offloadv1.Tunnel) string { return cmp.Or(t.GetLocalIp(), "-") }},
	{name: "OFPORT", value: func(t *offloadv1.Tunnel) string { return orDash(t.GetOfport()) }},
}

var zoneColumns = []column[*offloadv1.Zone]{
	{name: "ZONE", value: func(z *offloadv1.Zone) string { return fmt.Sprint(z.GetZone()) }},
	{name: "OWNER", value: (*offloadv1.Zone).GetOwner},
}

// orDash returns a number, or a dash for 0.
func orDash(n uint32) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
