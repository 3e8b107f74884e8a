// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const LoadBalancerTable = "Load_Balancer"

type (
	LoadBalancerProtocol = string
)

var (
	LoadBalancerProtocolTCP  LoadBalancerProtocol = "tcp"
	LoadBalancerProtocolUDP  LoadBalancerProtocol = "udp"
	LoadBalancerProtocolSCTP LoadBalancerProtocol = "sctp"
)

// LoadBalancer defines an object in Load_Balancer table
type LoadBalancer struct {
	UUID          string                `ovsdb:"_uuid"`
	DatapathGroup *string               `ovsdb:"datapath_group"`
	Datapaths     []string              `ovsdb:"datapaths"`
	ExternalIDs   map[string]string     `ovsdb:"external_ids"`
	Name          string                `ovsdb:"name"`
	Options       map[string]string     `ovsdb:"options"`
	Protocol      *LoadBalancerProtocol `ovsdb:"protocol"`
	Vips          map[string]string     `ovsdb:"vips"`
}
