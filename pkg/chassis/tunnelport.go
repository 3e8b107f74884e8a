package chassis

// A TunnelPort is a tunnel port of a bridge as the database has it, whether it works or not.
type TunnelPort struct {
	Interface string // name
	Chassis   string // where it leads
	Type      string
	RemoteIP  string
	LocalIP   string // empty: the kernel chooses
	OFPort    uint16 // 0: none yet
}

// TunnelPorts returns the tunnel ports of the bridge with the given name, in the order of their names.
func TunnelPorts(s *Switch, bridge string) []TunnelPort {
	b := s.Bridge(bridge)
	if b == nil {
		return nil
	}
	var all []TunnelPort
	for _, p := range s.Ports(b) {
		chassis, _, ok := tunnelID(p.ExternalIDs[keyTunnel])
		if !ok {
			continue
		}
		for _, i := range s.Interfaces(p) {
			all = append(all, TunnelPort{
				Interface: i.Name, Chassis: chassis, Type: i.Type,
				RemoteIP: i.Options["remote_ip"], LocalIP: i.Options["local_ip"], OFPort: ofPort(i),
			})
		}
	}
	return all
}
