// SPDX-License-Identifier: GPL-2.0
/*
 * Flower filters. A binding is a netdev whose block of filters we are told of: a representor or the uplink, by ndo_setup_tc, or a
 * tunnel device, by flow_indr. A filter of a shared block comes once for each binding of the block, so that a rule, which
 * is what the hardware has of it, is known by binding and cookie.
 */
#include <linux/delay.h>
#include <linux/seq_file.h>
#include <net/geneve.h>
#include <net/pkt_cls.h>
#include <net/vxlan.h>
#include "simnic.h"

static LIST_HEAD(block_cbs); /* of representors, under RTNL */

struct tunnel {
	struct list_head list;		/* of the NIC */
	struct list_head block_cbs;	/* our one, for the kernel to unlink */
	struct simnic *nic;
	struct net_device *dev;
	enum flow_block_binder_type binder;
};

struct rule {
	struct hlist_node node;
	struct net_device *dev;
	unsigned long cookie;
	u32 chain;
	u32 prio;
	u64 keys;
	u64 actions;
	bool option;			/* holds the NIC's Geneve option */
	bool forgotten;			/* by the hardware, that is; the driver knows it */
	u64 packets;			/* not reported yet */
	u64 bytes;
	unsigned long lastused;
};

static struct rule *find_rule(struct simnic *nic, const struct net_device *dev, unsigned long cookie)
{
	struct rule *r;

	hash_for_each_possible(nic->rules, r, node, cookie) {
		if (r->cookie == cookie && r->dev == dev)
			return r;
	}
	return NULL;
}

static u64 action_bits(const struct flow_action *action)
{
	const struct flow_action_entry *act;
	u64 bits = 0;
	int i;

	flow_action_for_each(i, act, action)
		bits |= BIT_ULL(act->id);
	return bits;
}

/* take_option holds the one Geneve option that the hardware can match on at a time. */
static int take_option(struct simnic *nic, const struct geneve_opt *opt, struct netlink_ext_ack *extack)
{
	if (nic->option_users && (nic->option_class != opt->opt_class || nic->option_type != opt->type)) {
		NL_SET_ERR_MSG_MOD(extack, "Matching on GENEVE options: failed creating TLV opt object");
		return -EOPNOTSUPP;
	}
	nic->option_class = opt->opt_class;
	nic->option_type = opt->type;
	nic->option_users++;
	return 0;
}

static int flower_replace(struct simnic *nic, struct simnic_vport *from, struct net_device *dev, struct flow_cls_offload *f)
{
	struct netlink_ext_ack *extack = f->common.extack;
	const struct geneve_opt *option = NULL;
	struct simnic_flower *hw = &nic->flower;
	u32 max = READ_ONCE(hw->max_rules);
	u32 delay = READ_ONCE(hw->delay_ms);
	struct rule *r;
	int err;

	if (delay)
		msleep(delay);
	if (from && !tc_can_offload_extack(dev, extack))
		return -EOPNOTSUPP;
	if (atomic_dec_if_positive(&hw->refuse_nth) == 0) {
		NL_SET_ERR_MSG_MOD(extack, "failed applying action to hardware");
		return -EOPNOTSUPP;
	}
	err = simnic_validate(nic, from, dev, f, &option);
	if (err)
		return err;

	r = kzalloc(sizeof(*r), GFP_KERNEL);
	if (!r)
		return -ENOMEM;
	r->dev = dev;
	r->cookie = f->cookie;
	r->chain = f->common.chain_index;
	r->prio = f->common.prio;
	r->keys = f->rule->match.dissector->used_keys;
	r->actions = action_bits(&f->rule->action);
	r->option = option;

	mutex_lock(&nic->rules_lock);
	if (find_rule(nic, dev, f->cookie)) {
		NL_SET_ERR_MSG_MOD(extack, "flow cookie already exists, ignoring");
		err = -EEXIST;
	} else if (max && nic->num_rules >= max) {
		NL_SET_ERR_MSG_MOD(extack, "no more flows");
		err = -ENOSPC;
	} else if (option) {
		err = take_option(nic, option, extack);
	}
	if (!err) {
		hash_add(nic->rules, &r->node, r->cookie);
		WRITE_ONCE(nic->num_rules, nic->num_rules + 1);
	}
	mutex_unlock(&nic->rules_lock);
	if (err)
		kfree(r);
	return err;
}

static int flower_destroy(struct simnic *nic, struct net_device *dev, struct flow_cls_offload *f)
{
	struct rule *r;

	mutex_lock(&nic->rules_lock);
	r = find_rule(nic, dev, f->cookie);
	if (r) {
		hash_del(&r->node);
		WRITE_ONCE(nic->num_rules, nic->num_rules - 1);
		if (r->option)
			nic->option_users--;
	}
	mutex_unlock(&nic->rules_lock);
	if (!r)
		return -EINVAL; /* as mlx5; the kernel then does not count it as one less in hardware */
	kfree(r);
	return 0;
}

static int flower_stats(struct simnic *nic, struct net_device *dev, struct flow_cls_offload *f)
{
	struct rule *r;

	mutex_lock(&nic->rules_lock);
	r = find_rule(nic, dev, f->cookie);
	if (r) {
		flow_stats_update(&f->stats, r->bytes, r->packets, 0, r->lastused, FLOW_ACTION_HW_STATS_DELAYED);
		r->packets = 0;
		r->bytes = 0;
	}
	mutex_unlock(&nic->rules_lock);
	return r ? 0 : -EINVAL;
}

/* from is the vport that the packets come from, NULL for a tunnel device. */
static int flower(struct simnic *nic, struct simnic_vport *from, struct net_device *dev, enum tc_setup_type type, void *type_data)
{
	struct flow_cls_offload *f = type_data;

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	switch (f->command) {
	case FLOW_CLS_REPLACE:
		return flower_replace(nic, from, dev, f);
	case FLOW_CLS_DESTROY:
		return flower_destroy(nic, dev, f);
	case FLOW_CLS_STATS:
		return flower_stats(nic, dev, f);
	default:
		return -EOPNOTSUPP;
	}
}

static int representor_block_cb(enum tc_setup_type type, void *type_data, void *priv)
{
	struct net_device *dev = priv;
	struct simnic_vport *vport = ((struct simnic_end *)netdev_priv(dev))->vport;

	return flower(vport->nic, vport, dev, type, type_data);
}

/* In legacy mode nothing of the uplink is offloaded; then filters stay in software when the mode changes, until they are bound anew. */
int simnic_setup_tc(struct net_device *dev, enum tc_setup_type type, void *type_data)
{
	struct simnic_end *end = netdev_priv(dev);
	struct flow_block_offload *f = type_data;
	int err;

	if (type != TC_SETUP_BLOCK)
		return -EOPNOTSUPP;
	if (f->command == FLOW_BLOCK_BIND && READ_ONCE(end->vport->nic->mode) != DEVLINK_ESWITCH_MODE_SWITCHDEV)
		return -EOPNOTSUPP;
	f->unlocked_driver_cb = true;
	err = flow_block_cb_setup_simple(f, &block_cbs, representor_block_cb, dev, dev, true);
	return err == -ENOENT ? -EOPNOTSUPP : err; /* the answer to bind was the same */
}

static int tunnel_block_cb(enum tc_setup_type type, void *type_data, void *priv)
{
	struct tunnel *t = priv;

	return flower(t->nic, NULL, t->dev, type, type_data);
}

static void tunnel_release(void *priv)
{
	struct tunnel *t = priv;

	mutex_lock(&t->nic->rules_lock);
	list_del(&t->list);
	mutex_unlock(&t->nic->rules_lock);
	kfree(t);
}

static struct tunnel *find_tunnel(struct simnic *nic, const struct net_device *dev)
{
	struct tunnel *t, *found = NULL;

	mutex_lock(&nic->rules_lock);
	list_for_each_entry(t, &nic->tunnels, list) {
		if (t->dev == dev)
			found = t;
	}
	mutex_unlock(&nic->rules_lock);
	return found;
}

static int tunnel_bind(struct simnic *nic, struct net_device *dev, struct Qdisc *sch, struct flow_block_offload *f, void *data,
		       void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_cb *cb;
	struct tunnel *t;

	if (find_tunnel(nic, dev))
		return -EEXIST;
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t)
		return -ENOMEM;
	t->nic = nic;
	t->dev = dev;
	INIT_LIST_HEAD(&t->block_cbs);
	cb = flow_indr_block_cb_alloc(tunnel_block_cb, t, t, tunnel_release, f, dev, sch, data, nic, cleanup);
	if (IS_ERR(cb)) {
		kfree(t);
		return PTR_ERR(cb);
	}
	mutex_lock(&nic->rules_lock);
	list_add_tail(&t->list, &nic->tunnels);
	mutex_unlock(&nic->rules_lock);
	f->driver_block_list = &t->block_cbs;
	flow_block_cb_add(cb, f);
	list_add_tail(&cb->driver_list, &t->block_cbs);
	return 0;
}

static int tunnel_unbind(struct simnic *nic, struct net_device *dev, struct flow_block_offload *f)
{
	struct flow_block_cb *cb;
	struct tunnel *t;

	t = find_tunnel(nic, dev);
	if (!t)
		return -ENOENT;
	cb = flow_block_cb_lookup(f->block, tunnel_block_cb, t);
	if (!cb)
		return -ENOENT;
	f->driver_block_list = &t->block_cbs;
	flow_indr_block_cb_remove(cb, f);
	list_del(&cb->driver_list);
	return 0;
}

static int indirect(struct net_device *dev, struct Qdisc *sch, void *priv, enum tc_setup_type type, void *type_data, void *data,
		    void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_offload *f = type_data;

	if (!dev || type != TC_SETUP_BLOCK || !(netif_is_geneve(dev) || netif_is_vxlan(dev)))
		return -EOPNOTSUPP;
	if (f->binder_type != FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS)
		return -EOPNOTSUPP;
	f->unlocked_driver_cb = true;
	switch (f->command) {
	case FLOW_BLOCK_BIND:
		return tunnel_bind(priv, dev, sch, f, data, cleanup);
	case FLOW_BLOCK_UNBIND:
		return tunnel_unbind(priv, dev, f);
	default:
		return -EOPNOTSUPP;
	}
}

/*
 * simnic_indirect_set starts or ends that we are told of tunnel devices; the devlink instance is locked. At the end their filters
 * lose in_hw. At the start the kernel tells us of blocks, but not of the filters that are in them.
 */
int simnic_indirect_set(struct simnic *nic, bool on)
{
	int err = 0;

	if (on == nic->indirect)
		return 0;
	if (on)
		err = flow_indr_dev_register(indirect, nic);
	else
		flow_indr_dev_unregister(indirect, nic, tunnel_release);
	if (!err)
		nic->indirect = on;
	return err;
}

bool simnic_has_rules(struct net_device *dev)
{
	struct simnic *nic = ((struct simnic_end *)netdev_priv(dev))->vport->nic;
	bool found = false;
	struct rule *r;
	int i;

	mutex_lock(&nic->rules_lock);
	hash_for_each(nic->rules, i, r, node)
		found = found || r->dev == dev;
	mutex_unlock(&nic->rules_lock);
	return found;
}

/* simnic_forget lets the hardware lose all rules that it has, without the driver's knowledge. */
void simnic_forget(struct simnic *nic)
{
	struct rule *r;
	int i;

	mutex_lock(&nic->rules_lock);
	hash_for_each(nic->rules, i, r, node)
		r->forgotten = true;
	mutex_unlock(&nic->rules_lock);
}

/* simnic_count lets each rule count n packets of 100 octets, but for those that the hardware has lost. */
void simnic_count(struct simnic *nic, u64 n)
{
	struct rule *r;
	int i;

	mutex_lock(&nic->rules_lock);
	hash_for_each(nic->rules, i, r, node) {
		if (r->forgotten || !n)
			continue;
		r->packets += n;
		r->bytes += 100 * n;
		r->lastused = jiffies;
	}
	mutex_unlock(&nic->rules_lock);
}

/* A line is: device, chain, priority, keys and actions as bits, and "forgotten" if it is. */
int simnic_rules_show(struct seq_file *s, struct simnic *nic)
{
	struct rule *r;
	int i;

	mutex_lock(&nic->rules_lock);
	hash_for_each(nic->rules, i, r, node)
		seq_printf(s, "%s %u %u %#llx %#llx%s\n", netdev_name(r->dev), r->chain, r->prio, r->keys, r->actions,
			   r->forgotten ? " forgotten" : "");
	mutex_unlock(&nic->rules_lock);
	return 0;
}
