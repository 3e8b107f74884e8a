// Package dpctl says what the datapath of Open vSwitch has, as dpctl(8) prints it: it asks a running ovs-vswitchd, and reads the
// megaflows in its answer, where each is handled and what it has counted. Nothing is changed.
//
// The text is that of format_dpif_flow (lib/dpctl.c) and odp_flow_format (lib/odp-util.c) of Open vSwitch 3.1. What a newer one adds to a
// megaflow is kept as text; Match names what it does not understand.
package dpctl
