package chassis

import (
	"cmp"
	"slices"

	"github.com/offloadd/offloadd/pkg/sb"
)

// maxNesting is how many patch ports away from a local port a datapath may be. It bounds a walk through a topology
// nobody could want, as in add_local_datapath__() of OVN.
const maxNesting = 100

// walk returns the datapaths that are local: those of roots, and what patch ports make of them. tooDeep says that
// some datapaths were left out for being further than maxNesting away.
//
// Peers are listed on both sides of a connection, even if it is followed only in one direction.
func walk(store *sb.Store, me sb.UUID, roots map[sb.UUID]struct{}) (local map[sb.UUID]*LocalDatapath, tooDeep bool) {
	local = map[sb.UUID]*LocalDatapath{}
	var next []sb.UUID
	visit := func(uuid sb.UUID) {
		dp := store.Datapaths[uuid]
		if dp == nil || local[uuid] != nil {
			return
		}
		local[uuid] = &LocalDatapath{UUID: uuid, IsSwitch: dp.IsSwitch}
		next = append(next, uuid)
	}
	for uuid := range roots {
		visit(uuid)
	}
	for depth := 0; len(next) > 0; depth++ {
		level := next
		next = nil
		if depth >= maxNesting {
			return connect(store, me, local), true
		}
		for _, uuid := range level {
			for _, port := range store.PortsOf(uuid) {
				if peer := peerOf(store, port); peer != nil && crosses(store, me, port) {
					visit(peer.Datapath)
				}
			}
		}
	}
	return connect(store, me, local), false
}

// connect fills in the peers of local datapaths.
func connect(store *sb.Store, me sb.UUID, local map[sb.UUID]*LocalDatapath) map[sb.UUID]*LocalDatapath {
	for uuid, dp := range local {
		for _, port := range store.PortsOf(uuid) {
			peer := peerOf(store, port)
			if peer == nil || local[peer.Datapath] == nil {
				continue
			}
			if crosses(store, me, port) || crosses(store, me, peer) {
				dp.Peers = append(dp.Peers, Peer{port.UUID, peer.UUID})
			}
		}
		slices.SortFunc(dp.Peers, func(a, b Peer) int {
			return cmp.Or(compareUUIDs(a.Local, b.Local), compareUUIDs(a.Remote, b.Remote))
		})
	}
	return local
}

// peerOf returns the port at the other end of a router attachment, or nil.
func peerOf(store *sb.Store, port *sb.Port) *sb.Port {
	if port.Type != sb.Patch && port.Type != sb.L3Gateway {
		return nil
	}
	peer := store.PortByName(port.Options["peer"])
	if peer == nil || store.Datapaths[peer.Datapath] == nil {
		return nil
	}
	return peer
}

// crosses reports whether packets of this chassis pass through port to the datapath of its peer: they do unless
// the port is a gateway whose traffic is all redirected to another chassis.
func crosses(store *sb.Store, me sb.UUID, port *sb.Port) bool {
	if port.Type == sb.L3Gateway {
		return port.Chassis == me
	}
	redirect, distributed := port.Options["chassis-redirect-port"]
	if !distributed {
		return true
	}
	gateway := store.PortByName(redirect)
	if gateway == nil {
		return false
	}
	if gateway.Options["always-redirect"] != "true" {
		return true
	}
	return inHAGroup(store, gateway.HAChassisGroup, me)
}
