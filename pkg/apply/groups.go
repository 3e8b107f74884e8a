package apply

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// InstalledGroup tells that the switch has a group. body is what openflow.AppendGroup makes of one of type select; nil
// stands for anything else, or says that it is not known.
func (t *FlowTable) InstalledGroup(id uint32, body []byte) { t.groups.has(id, string(body)) }

// longGroup is a length of groups, in bytes, that leaves room for the frame of a message.
const longGroup = 60000

// WantsGroup reports whether a group with that many buckets may be the one that is wanted under id, and is short enough
// for a switch to describe it.
func (t *FlowTable) WantsGroup(id uint32, buckets int) bool {
	e := t.groups.entries[id]
	return e != nil && e.owners > 0 && len(e.want) < longGroup && openflow.Buckets(e.want) == buckets
}

// UnknownGroups tells that the switch may have any groups: the first of the next Mods deletes them all. It is called
// before Installed, which leaves out the flows that go with them.
func (t *FlowTable) UnknownGroups() { t.noGroups = true }

// Missing tells why the switch will refuse m: which of the groups and meters that its actions use has been refused,
// or that m is another part of a group that has been. It returns nil if there is no such reason.
func (t *FlowTable) Missing(m openflow.Mod) error {
	if len(t.groups.refused)+len(t.meters.refused) == 0 {
		return nil
	}
	switch m.Kind {
	case openflow.GroupAdd, openflow.GroupModify, openflow.GroupInsert:
		if t.groups.lacks(m.Group) {
			return fmt.Errorf("group %d was refused", m.Group)
		}
	case openflow.FlowAdd, openflow.FlowModifyStrict:
		acts, err := openflow.DecodeActions([]byte(m.Body))
		if err != nil {
			return err
		}
		return t.missing(acts)
	case openflow.FlowDeleteStrict, openflow.FlowDelete, openflow.GroupDelete:
	}
	return nil
}

func (t *FlowTable) missing(acts []ir.Action) (err error) {
	hasAction(acts, func(a ir.Action) bool {
		switch a := a.(type) {
		case ir.Group:
			if t.groups.lacks(a.ID) {
				err = fmt.Errorf("group %d was refused", a.ID)
			}
		case ir.Meter:
			if t.meters.lacks(a.ID) {
				err = fmt.Errorf("meter %d was refused", a.ID)
			}
		}
		return err != nil
	})
	return err
}

// usesGroup reports whether actions have a group. Those that we could not have made have none.
func usesGroup(actions []byte) bool {
	acts, err := openflow.DecodeActions(actions)
	return err == nil && hasAction(acts, func(a ir.Action) bool {
		_, group := a.(ir.Group)
		return group
	})
}

// hasAction reports whether f holds for one of acts, or of those nested in them, at least.
func hasAction(acts []ir.Action, f func(ir.Action) bool) bool {
	for _, a := range acts {
		if c, ok := a.(ir.Clone); f(a) || ok && hasAction(c.Actions, f) {
			return true
		}
	}
	return false
}

func groupBodies(groups map[uint32]ir.SelectGroup) map[uint32]string {
	if len(groups) == 0 {
		return nil
	}
	bodies := make(map[uint32]string, len(groups))
	for id, g := range groups {
		bodies[id] = string(openflow.AppendGroup(nil, &g))
	}
	return bodies
}
