// SPDX-License-Identifier: GPL-2.0
/*
 * What the hardware takes of flower filters, and its words for what it does not. The rules are those of mlx5 in Linux 6.1, for a card
 * with all capabilities; they are written down here from what that driver does, and the messages are its own so that a
 * program that reads them can be tested.
 */
#include <linux/if_arp.h>
#include <linux/tc_act/tc_csum.h>
#include <net/geneve.h>
#include <net/inet_ecn.h>
#include <net/pkt_cls.h>
#include <net/tc_act/tc_ct.h>
#include <net/vxlan.h>
#include "simnic.h"

#define MAX_OUTPUTS 32
#define MAX_VLANS 2
#define MAX_REWRITES 32

/* How deep into the headers a filter looks. */
enum level { LEVEL_NONE, LEVEL_L2, LEVEL_L3, LEVEL_L4 };

struct check {
	struct simnic *nic;
	struct simnic_vport *from;	/* NULL: dev is a tunnel device */
	struct net_device *dev;
	struct flow_cls_offload *f;
	struct netlink_ext_ack *extack;

	/* Of the match. */
	enum level level;
	__be16 n_proto;
	u8 ip_proto;
	bool vlan;
	bool ct_state;			/* is matched on */
	const struct geneve_opt *option;

	/* Of the actions. */
	bool forward, drop, rewrite, ct, ct_clear, encap, decap;
	int vlans, outputs;
	int ifindexes[MAX_OUTPUTS];
	u8 masks[6][2][64];		/* by header and set or add: the bits that are written */
};

/* refuse says why, and is the error that means that the hardware cannot. */
#define refuse(c, why) ({ NL_SET_ERR_MSG_MOD((c)->extack, why); -EOPNOTSUPP; })

static bool matches(struct check *c, enum flow_dissector_key_id key)
{
	return flow_rule_match_key(c->f->rule, key);
}

static void deepen(struct check *c, enum level level)
{
	c->level = max(c->level, level);
}

static bool any_set(const void *p, size_t n)
{
	return memchr_inv(p, 0, n);
}

static int check_tunnel_ecn(struct check *c)
{
	u8 outer = 0, outer_mask = 0, inner = 0, inner_mask = 0;
	struct flow_match_ip ip;

	if (matches(c, FLOW_DISSECTOR_KEY_ENC_IP)) {
		flow_rule_match_enc_ip(c->f->rule, &ip);
		outer = ip.key->tos & INET_ECN_MASK;
		outer_mask = ip.mask->tos & INET_ECN_MASK;
	}
	if (matches(c, FLOW_DISSECTOR_KEY_IP)) {
		flow_rule_match_ip(c->f->rule, &ip);
		inner = ip.key->tos & INET_ECN_MASK;
		inner_mask = ip.mask->tos & INET_ECN_MASK;
	}
	if (outer_mask && outer_mask != INET_ECN_MASK)
		return refuse(c, "Partial match on enc_tos ecn bits isn't supported");
	if (!inner_mask)
		return 0;
	if (!outer_mask)
		return refuse(c, "Matching on tos ecn bits without also matching enc_tos ecn bits isn't supported");
	if (inner_mask != INET_ECN_MASK)
		return refuse(c, "Partial match on tos ecn bits with match on enc_tos ecn bits isn't supported");
	if (outer == INET_ECN_ECT_1)
		return refuse(c, "Match on enc_tos ecn = ECT(1) isn't supported");
	if (outer == INET_ECN_CE && inner != INET_ECN_CE)
		return refuse(c, "Match on tos enc_tos ecn = CE while match on tos ecn != CE isn't supported");
	return 0;
}

static int check_geneve_options(struct check *c)
{
	const struct geneve_opt *key, *mask;
	struct flow_match_enc_opts opts;
	int off;

	if (!matches(c, FLOW_DISSECTOR_KEY_ENC_OPTS))
		return 0;
	flow_rule_match_enc_opts(c->f->rule, &opts);
	if (opts.key->dst_opt_type != TUNNEL_GENEVE_OPT)
		return refuse(c, "Matching on GENEVE options: option type is not GENEVE");
	for (off = 0; off < opts.mask->len; off += sizeof(*mask) + mask->length * 4) {
		mask = (const struct geneve_opt *)&opts.mask->data[off];
		if (off && !any_set(mask, sizeof(*mask)))
			continue;
		if (mask->opt_class != htons(U16_MAX) || mask->type != U8_MAX)
			return refuse(c, "Partial match of tunnel options in chain > 0 isn't supported");
	}
	key = (const struct geneve_opt *)&opts.key->data[0];
	mask = (const struct geneve_opt *)&opts.mask->data[0];
	if (opts.key->len / 4 > 2) /* one option with one word */
		return refuse(c, "Matching on GENEVE options: unsupported options len");
	if (!opts.key->len || (!mask->opt_class && !mask->type && !any_set(mask->opt_data, mask->length * 4)))
		return 0;
	if (key->length > 1)
		return refuse(c, "Matching on GENEVE options: unsupported option len");
	if (!any_set(key->opt_data, key->length * 4))
		return refuse(c, "Matching on GENEVE options: can't match on 0 data field");
	c->option = key;
	return 0;
}

static int check_tunnel(struct check *c)
{
	struct flow_match_control control;
	struct flow_match_ports ports;
	int err;

	if (matches(c, FLOW_DISSECTOR_KEY_ENC_CONTROL)) {
		flow_rule_match_enc_control(c->f->rule, &control);
		if (control.mask->flags & FLOW_DIS_IS_FRAGMENT)
			return refuse(c, "Failed to parse tunnel attributes");
	}
	if (!matches(c, FLOW_DISSECTOR_KEY_ENC_PORTS))
		return refuse(c, "UDP tunnel decap filter must include enc_dst_port condition");
	flow_rule_match_enc_ports(c->f->rule, &ports);
	if (ports.mask->dst != htons(U16_MAX))
		return refuse(c, "UDP tunnel decap filter must match enc_dst_port fully");
	if (netif_is_geneve(c->dev)) {
		if (ports.key->dst != htons(GENEVE_UDP_PORT))
			return refuse(c, "Matched UDP dst port is not registered as a GENEVE port");
		err = check_geneve_options(c);
		if (err)
			return err;
	}
	return check_tunnel_ecn(c);
}

static int check_ct_match(struct check *c)
{
	const u16 known = TCA_FLOWER_KEY_CT_FLAGS_TRACKED | TCA_FLOWER_KEY_CT_FLAGS_ESTABLISHED | TCA_FLOWER_KEY_CT_FLAGS_NEW |
			  TCA_FLOWER_KEY_CT_FLAGS_REPLY | TCA_FLOWER_KEY_CT_FLAGS_RELATED | TCA_FLOWER_KEY_CT_FLAGS_INVALID;
	struct flow_match_ct ct;
	u16 on;

	if (!matches(c, FLOW_DISSECTOR_KEY_CT))
		return 0;
	if (!READ_ONCE(c->nic->flower.ct))
		return refuse(c, "offload of ct matching isn't available");
	flow_rule_match_ct(c->f->rule, &ct);
	if (ct.mask->ct_state & ~known)
		return refuse(c, "only ct_state trk, est, new and rpl are supported for offload");
	on = ct.key->ct_state & ct.mask->ct_state;
	if (on & TCA_FLOWER_KEY_CT_FLAGS_RELATED)
		return refuse(c, "matching on ct_state +rel isn't supported");
	if (on & TCA_FLOWER_KEY_CT_FLAGS_INVALID)
		return refuse(c, "matching on ct_state +inv isn't supported");
	if ((on & TCA_FLOWER_KEY_CT_FLAGS_NEW) && !READ_ONCE(c->nic->flower.ct_new))
		return refuse(c, "matching on ct_state +new isn't supported");
	c->ct_state = ct.mask->ct_state;
	return 0;
}

static int check_meta(struct check *c)
{
	struct flow_match_meta meta;

	if (!matches(c, FLOW_DISSECTOR_KEY_META))
		return 0;
	flow_rule_match_meta(c->f->rule, &meta);
	if (!meta.mask->ingress_ifindex)
		return 0;
	if (meta.mask->ingress_ifindex != U32_MAX)
		return refuse(c, "Unsupported ingress ifindex mask");
	if (meta.key->ingress_ifindex != c->dev->ifindex)
		return refuse(c, "Can't match on the ingress filter port");
	return 0;
}

static void read_l2(struct check *c)
{
	struct flow_match_eth_addrs eth;
	struct flow_match_basic basic;
	struct flow_match_vlan vlan;

	if (matches(c, FLOW_DISSECTOR_KEY_BASIC)) {
		flow_rule_match_basic(c->f->rule, &basic);
		c->n_proto = basic.key->n_proto & basic.mask->n_proto;
		c->ip_proto = basic.key->ip_proto;
		if (basic.mask->n_proto)
			deepen(c, LEVEL_L2);
		if (basic.mask->ip_proto)
			deepen(c, LEVEL_L3);
	}
	if (matches(c, FLOW_DISSECTOR_KEY_VLAN)) {
		flow_rule_match_vlan(c->f->rule, &vlan);
		c->vlan = vlan.mask->vlan_id || vlan.mask->vlan_priority || vlan.mask->vlan_tpid;
		deepen(c, LEVEL_L2);
	}
	if (matches(c, FLOW_DISSECTOR_KEY_ETH_ADDRS)) {
		flow_rule_match_eth_addrs(c->f->rule, &eth);
		if (any_set(eth.mask, sizeof(*eth.mask)))
			deepen(c, LEVEL_L2);
	}
}

static int check_l3(struct check *c)
{
	struct flow_match_control control;
	struct flow_match_ip ip;

	if (matches(c, FLOW_DISSECTOR_KEY_CONTROL)) {
		flow_rule_match_control(c->f->rule, &control);
		if (control.mask->flags & FLOW_DIS_FIRST_FRAG)
			return refuse(c, "Match on frag first/later is not supported");
		if (control.mask->flags & FLOW_DIS_IS_FRAGMENT)
			deepen(c, control.key->flags & FLOW_DIS_IS_FRAGMENT ? LEVEL_L3 : LEVEL_L2);
	}
	if (matches(c, FLOW_DISSECTOR_KEY_IPV4_ADDRS) || matches(c, FLOW_DISSECTOR_KEY_IPV6_ADDRS))
		deepen(c, LEVEL_L3);
	if (matches(c, FLOW_DISSECTOR_KEY_IP)) {
		flow_rule_match_ip(c->f->rule, &ip);
		if (ip.mask->ttl && !READ_ONCE(c->nic->flower.ttl))
			return refuse(c, "Matching on TTL is not supported");
		if (ip.mask->tos || ip.mask->ttl)
			deepen(c, LEVEL_L3);
	}
	return 0;
}

static int check_l4(struct check *c)
{
	if (matches(c, FLOW_DISSECTOR_KEY_PORTS)) {
		if (c->ip_proto != IPPROTO_TCP && c->ip_proto != IPPROTO_UDP) {
			NL_SET_ERR_MSG_MOD(c->extack, "Only UDP and TCP transports are supported for L4 matching");
			return -EINVAL;
		}
		deepen(c, LEVEL_L4);
	}
	if (matches(c, FLOW_DISSECTOR_KEY_TCP))
		deepen(c, LEVEL_L4);
	if (matches(c, FLOW_DISSECTOR_KEY_ICMP)) {
		if (c->ip_proto != IPPROTO_ICMP && c->ip_proto != IPPROTO_ICMPV6) {
			NL_SET_ERR_MSG_MOD(c->extack, "Code and type matching only with ICMP and ICMPv6");
			return -EINVAL;
		}
		deepen(c, LEVEL_L4);
	}
	if (matches(c, FLOW_DISSECTOR_KEY_MPLS))
		return refuse(c, "Matching on MPLS is supported only for MPLS over UDP");
	return 0;
}

static int check_match(struct check *c)
{
	const u64 known = BIT_ULL(FLOW_DISSECTOR_KEY_META) | BIT_ULL(FLOW_DISSECTOR_KEY_CONTROL) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_BASIC) | BIT_ULL(FLOW_DISSECTOR_KEY_ETH_ADDRS) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_VLAN) | BIT_ULL(FLOW_DISSECTOR_KEY_CVLAN) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_IPV4_ADDRS) | BIT_ULL(FLOW_DISSECTOR_KEY_IPV6_ADDRS) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_PORTS) | BIT_ULL(FLOW_DISSECTOR_KEY_ENC_KEYID) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_ENC_IPV4_ADDRS) | BIT_ULL(FLOW_DISSECTOR_KEY_ENC_IPV6_ADDRS) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_ENC_PORTS) | BIT_ULL(FLOW_DISSECTOR_KEY_ENC_CONTROL) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_TCP) | BIT_ULL(FLOW_DISSECTOR_KEY_IP) | BIT_ULL(FLOW_DISSECTOR_KEY_CT) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_ENC_IP) | BIT_ULL(FLOW_DISSECTOR_KEY_ENC_OPTS) |
			  BIT_ULL(FLOW_DISSECTOR_KEY_ICMP) | BIT_ULL(FLOW_DISSECTOR_KEY_MPLS);
	u8 inline_mode = c->nic->inline_mode;
	int err = 0;

	if (c->f->rule->match.dissector->used_keys & ~known)
		return refuse(c, "Unsupported key");
	if (!c->from)
		err = check_tunnel(c);
	err = err ?: check_meta(c);
	read_l2(c);
	err = err ?: check_l3(c);
	err = err ?: check_l4(c);
	if (err)
		return err;
	if (c->from && c->from->kind != SIMNIC_UPLINK && inline_mode != DEVLINK_ESWITCH_INLINE_MODE_NONE &&
	    inline_mode < c->level)
		return refuse(c, "Flow is not offloaded due to min inline setting");
	return check_ct_match(c);
}

static int check_goto(struct check *c, const struct flow_action_entry *act)
{
	if (act->chain_index > READ_ONCE(c->nic->flower.max_chain))
		return refuse(c, "Requested destination chain is out of supported range");
	c->forward = true;
	return 0;
}

static int check_output(struct check *c, const struct flow_action_entry *act)
{
	struct simnic_vport *to;
	int i;

	if (!act->dev)
		return -EOPNOTSUPP;
	if (c->outputs == MAX_OUTPUTS)
		return refuse(c, "can't support more output ports, can't offload forwarding");
	c->forward = true;
	if (c->encap) {
		if (!netif_is_geneve(act->dev) && !netif_is_vxlan(act->dev))
			return refuse(c, "Unsupported tunnel");
		if (c->nic->encap_mode == DEVLINK_ESWITCH_ENCAP_MODE_NONE)
			return refuse(c, "encap isn't enabled");
		c->encap = false;
		c->ifindexes[c->outputs++] = 0;
		return 0;
	}
	to = simnic_vport_of(act->dev);
	if (!to || to->nic != c->nic) {
		if (!c->from) /* every NIC is asked for tunnel devices' filters, and this is another's */
			return -EOPNOTSUPP;
		return refuse(c, "devices are not on same switch HW, can't offload forwarding");
	}
	for (i = 0; i < c->outputs; i++) {
		if (c->ifindexes[i] == act->dev->ifindex)
			return refuse(c, "can't duplicate output to same device");
	}
	if (c->from == to && to->kind != SIMNIC_UPLINK)
		return refuse(c, "can't forward from a VF to itself");
	c->ifindexes[c->outputs++] = act->dev->ifindex;
	return 0;
}

/* check_rewrite collects the bits that are written, header by header. */
static int check_rewrite(struct check *c, const struct flow_action_entry *act)
{
	u32 mask = ~act->mangle.mask;
	u8 *masks;
	int i;

	if (act->mangle.htype == FLOW_ACT_MANGLE_UNSPEC)
		return refuse(c, "legacy pedit isn't offloaded");
	masks = c->masks[act->mangle.htype][act->id == FLOW_ACTION_ADD];
	if (act->mangle.offset + 4 > sizeof(c->masks[0][0]))
		return refuse(c, "attempt to offload an unsupported field");
	masks += act->mangle.offset;
	for (i = 0; i < 4; i++) {
		if (masks[i] & ((u8 *)&mask)[i])
			return refuse(c, "curr_pmask and new mask same. Acting twice on same location");
		masks[i] |= ((u8 *)&mask)[i];
	}
	c->rewrite = true;
	return 0;
}

struct field {
	u8 header, offset, size;
	u8 mask[2];			/* of the first octets; 0: all bits */
};

static const struct field fields[] = {
	{ FLOW_ACT_MANGLE_HDR_TYPE_ETH, 0, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_ETH, 4, 2 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_ETH, 6, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_ETH, 10, 2 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_ETH, 12, 2 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP4, 1, 1, { 0xfc } }, { FLOW_ACT_MANGLE_HDR_TYPE_IP4, 8, 1 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP4, 12, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_IP4, 16, 4 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP6, 0, 2, { 0x0f, 0xc0 } }, { FLOW_ACT_MANGLE_HDR_TYPE_IP6, 7, 1 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP6, 8, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_IP6, 12, 4 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP6, 16, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_IP6, 20, 4 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP6, 24, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_IP6, 28, 4 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_IP6, 32, 4 }, { FLOW_ACT_MANGLE_HDR_TYPE_IP6, 36, 4 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_TCP, 0, 2 }, { FLOW_ACT_MANGLE_HDR_TYPE_TCP, 2, 2 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_TCP, 13, 1 },
	{ FLOW_ACT_MANGLE_HDR_TYPE_UDP, 0, 2 }, { FLOW_ACT_MANGLE_HDR_TYPE_UDP, 2, 2 },
};

/* take_field takes a field's bits out of the masks, and returns them as a number. */
static u32 take_field(u8 *masks, const struct field *f)
{
	u32 bits = 0;
	int i;

	for (i = 0; i < f->size; i++) {
		u8 want = i < 2 && f->mask[0] ? f->mask[i] : 0xff;

		bits = bits << 8 | (masks[f->offset + i] & want);
		masks[f->offset + i] &= ~want;
	}
	return bits;
}

/* check_rewrites holds what was collected against the fields that the hardware can write. */
static int check_rewrites(struct check *c)
{
	int i, n = 0;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *f = &fields[i];
		u32 set = take_field(c->masks[f->header][0], f);
		u32 add = take_field(c->masks[f->header][1], f);
		u32 bits = set | add;

		if (!bits)
			continue;
		if (set && add)
			return refuse(c, "can't set and add to the same HW field");
		bits >>= __ffs(bits);
		if (bits & (bits + 1))
			return refuse(c, "rewrite of few sub-fields isn't supported");
		if (++n > MAX_REWRITES)
			return refuse(c, "too many pedit actions, can't offload");
	}
	if (any_set(c->masks, sizeof(c->masks)))
		return refuse(c, "attempt to offload an unsupported field");
	return 0;
}

/* check_rewritten is what a rewrite asks of the match and of connection tracking. It reads the actions, not the masks. */
static int check_rewritten(struct check *c)
{
	const struct flow_action_entry *act;
	bool header = false, tuple = false;
	bool ct = c->ct && !c->ct_clear;
	int i;

	if (c->n_proto != htons(ETH_P_IP) && c->n_proto != htons(ETH_P_IPV6))
		return 0;
	flow_action_for_each(i, act, &c->f->rule->action) {
		u32 mask = ~act->mangle.mask;
		const u8 *octets = (const u8 *)&mask;

		if (act->id != FLOW_ACTION_MANGLE && act->id != FLOW_ACTION_ADD)
			continue;
		switch (act->mangle.htype) {
		case FLOW_ACT_MANGLE_HDR_TYPE_IP4:
			if (act->mangle.offset != 8 || any_set(octets + 1, 3))
				header = true;
			if (act->mangle.offset >= 12)
				tuple = true;
			if (ct && tuple)
				return refuse(c, "can't offload re-write of ipv4 address with action ct");
			break;
		case FLOW_ACT_MANGLE_HDR_TYPE_IP6:
			if (act->mangle.offset != 4 || any_set(octets, 3))
				header = true;
			if (ct && act->mangle.offset >= 8)
				return refuse(c, "can't offload re-write of ipv6 address with action ct");
			break;
		case FLOW_ACT_MANGLE_HDR_TYPE_TCP:
		case FLOW_ACT_MANGLE_HDR_TYPE_UDP:
			tuple = true;
			if (ct)
				return refuse(c, "can't offload re-write of transport header ports with action ct");
			break;
		default:
			break;
		}
	}
	if (tuple && !c->ct_clear && c->ct_state)
		return refuse(c, "can't offload tuple modification with ct matches and no ct(clear) action");
	if (header && c->ip_proto != IPPROTO_TCP && c->ip_proto != IPPROTO_UDP && c->ip_proto != IPPROTO_ICMP)
		return refuse(c, "can't offload re-write of non TCP/UDP");
	return 0;
}

static int check_ct(struct check *c, const struct flow_action_entry *act)
{
	bool clear = act->ct.action & TCA_CT_ACT_CLEAR;

	if (!READ_ONCE(c->nic->flower.ct))
		return refuse(c, "offload of ct action isn't available");
	if (c->ct && !clear)
		return refuse(c, "Multiple CT actions are not supported");
	if (clear)
		c->ct_clear = true;
	else
		c->ct = true;
	return 0;
}

static int check_action(struct check *c, const struct flow_action_entry *act)
{
	switch (act->id) {
	case FLOW_ACTION_ACCEPT:
		c->forward = true;
		return 0;
	case FLOW_ACTION_DROP:
		c->drop = true;
		return 0;
	case FLOW_ACTION_TRAP:
		if (!flow_offload_has_one_action(&c->f->rule->action))
			return refuse(c, "action trap is supported as a sole action only");
		c->forward = true;
		return 0;
	case FLOW_ACTION_GOTO:
		return check_goto(c, act);
	case FLOW_ACTION_REDIRECT:
	case FLOW_ACTION_MIRRED:
		return check_output(c, act);
	case FLOW_ACTION_REDIRECT_INGRESS:
		return refuse(c, "redirect to ingress is supported only for OVS internal ports");
	case FLOW_ACTION_VLAN_PUSH:
	case FLOW_ACTION_VLAN_POP:
		if (c->vlans++ == MAX_VLANS)
			return refuse(c, "Total vlans used is greater than supported");
		return 0;
	case FLOW_ACTION_VLAN_MANGLE:
		if (!c->vlan)
			return refuse(c, "VLAN rewrite action must have VLAN protocol match");
		c->rewrite = true;
		return 0;
	case FLOW_ACTION_TUNNEL_ENCAP:
		if (!act->tunnel)
			return refuse(c, "Zero tunnel attributes is not supported");
		c->encap = true;
		return 0;
	case FLOW_ACTION_TUNNEL_DECAP:
		c->decap = true;
		return 0;
	case FLOW_ACTION_MANGLE:
	case FLOW_ACTION_ADD:
		return check_rewrite(c, act);
	case FLOW_ACTION_CSUM:
		if (!c->rewrite)
			return refuse(c, "TC csum action is only offloaded with pedit");
		if (act->csum_flags & ~(TCA_CSUM_UPDATE_FLAG_IPV4HDR | TCA_CSUM_UPDATE_FLAG_TCP | TCA_CSUM_UPDATE_FLAG_UDP))
			return refuse(c, "can't offload TC csum action for some header/s");
		return 0;
	case FLOW_ACTION_PTYPE:
		if (act->ptype != PACKET_HOST)
			return refuse(c, "skbedit ptype is only supported with type host");
		return 0;
	case FLOW_ACTION_POLICE:
		if (act->police.notexceed.act_id != FLOW_ACTION_PIPE && act->police.notexceed.act_id != FLOW_ACTION_ACCEPT)
			return refuse(c, "Offload not supported when conform action is not pipe or ok");
		if (act->police.exceed.act_id != FLOW_ACTION_DROP)
			return refuse(c, "Offload not supported when exceed action is not drop");
		return 0;
	case FLOW_ACTION_SAMPLE:
		return 0;
	case FLOW_ACTION_CT:
		return check_ct(c, act);
	default:
		return refuse(c, "Not implemented offload action");
	}
}

static int check_actions(struct check *c)
{
	struct flow_action *action = &c->f->rule->action;
	const struct flow_action_entry *act;
	bool jumps = false;
	int i, err;

	if (!flow_action_has_entries(action)) {
		NL_SET_ERR_MSG_MOD(c->extack, "Flow action doesn't have any entries");
		return -EINVAL;
	}
	if (!flow_action_hw_stats_check(action, c->extack, FLOW_ACTION_HW_STATS_DELAYED_BIT)) {
		NL_SET_ERR_MSG_MOD(c->extack, "Flow action HW stats type is not supported");
		return -EOPNOTSUPP;
	}
	flow_action_for_each(i, act, action) {
		err = check_action(c, act);
		if (err)
			return err;
		jumps = jumps || (act->id == FLOW_ACTION_GOTO && act->chain_index);
	}
	if (c->decap && jumps)
		return refuse(c, "Decap with goto isn't supported");
	if (!c->forward && !c->drop)
		return refuse(c, "Rule must have at least one forward/drop action");
	if (c->forward && c->drop)
		return refuse(c, "Rule cannot support forward+drop action");
	if (c->rewrite && c->drop)
		return refuse(c, "Drop with modify header action is not supported");
	if (!c->rewrite)
		return 0;
	return check_rewritten(c) ?: check_rewrites(c);
}

static int check_refused(struct check *c)
{
	u64 actions = READ_ONCE(c->nic->flower.refuse_actions);
	u64 keys = READ_ONCE(c->nic->flower.refuse_keys);
	const struct flow_action_entry *act;
	int i;

	if (c->f->rule->match.dissector->used_keys & keys)
		return refuse(c, "Unsupported key");
	flow_action_for_each(i, act, &c->f->rule->action) {
		if (actions & BIT_ULL(act->id))
			return refuse(c, "Not implemented offload action");
	}
	return 0;
}

/*
 * simnic_validate says whether the hardware takes a filter: 0, or an error and why. from is the vport that the filtered packets come
 * from, NULL for a tunnel device. option is set to the Geneve option that the filter needs, which lives as long as the filter.
 */
int simnic_validate(struct simnic *nic, struct simnic_vport *from, struct net_device *dev, struct flow_cls_offload *f,
		    const struct geneve_opt **option)
{
	struct check *c;
	int err;

	c = kzalloc(sizeof(*c), GFP_KERNEL);
	if (!c)
		return -ENOMEM;
	c->nic = nic;
	c->from = from;
	c->dev = dev;
	c->f = f;
	c->extack = f->common.extack;
	err = check_refused(c);
	if (!err && !READ_ONCE(nic->flower.accept_all)) {
		if (f->common.chain_index > READ_ONCE(nic->flower.max_chain))
			err = refuse(c, "Requested chain is out of supported range");
		err = err ?: check_match(c);
		err = err ?: check_actions(c);
		*option = c->option;
	}
	kfree(c);
	return err;
}
