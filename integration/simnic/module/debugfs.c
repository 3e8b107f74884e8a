// SPDX-License-Identifier: GPL-2.0
/* Knobs: /sys/kernel/debug/simnic/simnicN. */
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include "simnic.h"

static const char *const failures[SIMNIC_FAILURES] = {
	[SIMNIC_FAIL_PORT_NEW] = "fail_port_new",
	[SIMNIC_FAIL_PORT_DEL] = "fail_port_del",
	[SIMNIC_FAIL_HW_ADDR_SET] = "fail_hw_addr_set",
	[SIMNIC_FAIL_STATE_SET] = "fail_state_set",
	[SIMNIC_FAIL_ESWITCH_SET] = "fail_eswitch_set",
	[SIMNIC_FAIL_NETDEV] = "fail_netdev",
};

/* simnic_fails says whether this call is one of those that are to fail, and counts it. */
bool simnic_fails(struct simnic *nic, enum simnic_failure what)
{
	return atomic_dec_if_positive(&nic->fail[what]) >= 0;
}

/* Names for sets of keys and actions, the words of tc-flower(8) and tc-actions(8) where they have one. */
struct name {
	const char *name;
	u64 bits;
};

static const struct name keys[] = {
	{ "indev", BIT_ULL(FLOW_DISSECTOR_KEY_META) },
	{ "mac", BIT_ULL(FLOW_DISSECTOR_KEY_ETH_ADDRS) },
	{ "vlan", BIT_ULL(FLOW_DISSECTOR_KEY_VLAN) },
	{ "ipv4", BIT_ULL(FLOW_DISSECTOR_KEY_IPV4_ADDRS) },
	{ "ipv6", BIT_ULL(FLOW_DISSECTOR_KEY_IPV6_ADDRS) },
	{ "ip", BIT_ULL(FLOW_DISSECTOR_KEY_IP) },
	{ "ports", BIT_ULL(FLOW_DISSECTOR_KEY_PORTS) },
	{ "tcp_flags", BIT_ULL(FLOW_DISSECTOR_KEY_TCP) },
	{ "icmp", BIT_ULL(FLOW_DISSECTOR_KEY_ICMP) },
	{ "ct", BIT_ULL(FLOW_DISSECTOR_KEY_CT) },
	{ "enc_key_id", BIT_ULL(FLOW_DISSECTOR_KEY_ENC_KEYID) },
	{ "enc_ip", BIT_ULL(FLOW_DISSECTOR_KEY_ENC_IPV4_ADDRS) | BIT_ULL(FLOW_DISSECTOR_KEY_ENC_IPV6_ADDRS) },
	{ "enc_opts", BIT_ULL(FLOW_DISSECTOR_KEY_ENC_OPTS) },
	{}
};

static const struct name actions[] = {
	{ "pass", BIT_ULL(FLOW_ACTION_ACCEPT) },
	{ "drop", BIT_ULL(FLOW_ACTION_DROP) },
	{ "trap", BIT_ULL(FLOW_ACTION_TRAP) },
	{ "goto", BIT_ULL(FLOW_ACTION_GOTO) },
	{ "redirect", BIT_ULL(FLOW_ACTION_REDIRECT) },
	{ "mirror", BIT_ULL(FLOW_ACTION_MIRRED) },
	{ "vlan", BIT_ULL(FLOW_ACTION_VLAN_PUSH) | BIT_ULL(FLOW_ACTION_VLAN_POP) | BIT_ULL(FLOW_ACTION_VLAN_MANGLE) },
	{ "tunnel_set", BIT_ULL(FLOW_ACTION_TUNNEL_ENCAP) },
	{ "tunnel_unset", BIT_ULL(FLOW_ACTION_TUNNEL_DECAP) },
	{ "pedit", BIT_ULL(FLOW_ACTION_MANGLE) | BIT_ULL(FLOW_ACTION_ADD) },
	{ "csum", BIT_ULL(FLOW_ACTION_CSUM) },
	{ "ct", BIT_ULL(FLOW_ACTION_CT) },
	{ "police", BIT_ULL(FLOW_ACTION_POLICE) },
	{ "sample", BIT_ULL(FLOW_ACTION_SAMPLE) },
	{}
};

/* Words are written into the file, all of the set at once; none is the empty set. */
static ssize_t set_write(const struct name *names, u64 *set, const char __user *from, size_t n, loff_t *pos)
{
	char buf[256], *rest = buf, *word;
	const struct name *name;
	u64 bits = 0;

	if (n >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, from, n))
		return -EFAULT;
	buf[n] = 0;
	while ((word = strsep(&rest, " \n"))) {
		if (!*word)
			continue;
		for (name = names; name->name && strcmp(name->name, word); name++)
			;
		if (!name->name)
			return -EINVAL;
		bits |= name->bits;
	}
	WRITE_ONCE(*set, bits);
	return n;
}

static ssize_t refuse_keys_write(struct file *file, const char __user *from, size_t n, loff_t *pos)
{
	struct simnic *nic = file->private_data;

	return set_write(keys, &nic->flower.refuse_keys, from, n, pos);
}

static ssize_t refuse_actions_write(struct file *file, const char __user *from, size_t n, loff_t *pos)
{
	struct simnic *nic = file->private_data;

	return set_write(actions, &nic->flower.refuse_actions, from, n, pos);
}

static const struct file_operations refuse_keys_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = refuse_keys_write,
};

static const struct file_operations refuse_actions_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = refuse_actions_write,
};

static int rules_show(struct seq_file *s, void *unused)
{
	return simnic_rules_show(s, s->private);
}
DEFINE_SHOW_ATTRIBUTE(rules);

/* For what is written to make something happen any number does it. */
static int reset_set(void *data, u64 n)
{
	struct simnic *nic = data;
	int err;

	devl_lock(priv_to_devlink(nic));
	err = simnic_reset(nic);
	devl_unlock(priv_to_devlink(nic));
	return err;
}
DEFINE_DEBUGFS_ATTRIBUTE(reset_fops, NULL, reset_set, "%llu\n");

static int forget_set(void *data, u64 n)
{
	simnic_forget(data);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(forget_fops, NULL, forget_set, "%llu\n");

static int count_set(void *data, u64 n)
{
	simnic_count(data, n);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(count_fops, NULL, count_set, "%llu\n");

static int tunnels_get(void *data, u64 *n)
{
	struct simnic *nic = data;

	*n = READ_ONCE(nic->indirect);
	return 0;
}

static int tunnels_set(void *data, u64 n)
{
	struct simnic *nic = data;
	int err = -EOPNOTSUPP;

	devl_lock(priv_to_devlink(nic));
	if (nic->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		err = simnic_indirect_set(nic, n);
	devl_unlock(priv_to_devlink(nic));
	return err;
}
DEFINE_DEBUGFS_ATTRIBUTE(tunnels_fops, tunnels_get, tunnels_set, "%llu\n");

void simnic_debugfs_add(struct simnic *nic)
{
	struct simnic_flower *hw = &nic->flower;
	struct dentry *dir;
	int i;

	dir = debugfs_create_dir(dev_name(nic->dev), simnic_debugfs);
	for (i = 0; i < SIMNIC_FAILURES; i++)
		debugfs_create_atomic_t(failures[i], 0600, dir, &nic->fail[i]);
	debugfs_create_u32("sf_delay_ms", 0600, dir, &nic->sf_delay_ms);
	debugfs_create_bool("rdma", 0600, dir, &nic->rdma);
	debugfs_create_bool("vf_config", 0600, dir, &nic->vf_config);
	debugfs_create_file_unsafe("reset", 0200, dir, nic, &reset_fops);

	debugfs_create_bool("accept_all", 0600, dir, &hw->accept_all);
	debugfs_create_bool("ct", 0600, dir, &hw->ct);
	debugfs_create_bool("ct_new", 0600, dir, &hw->ct_new);
	debugfs_create_bool("ttl", 0600, dir, &hw->ttl);
	debugfs_create_u32("max_chain", 0600, dir, &hw->max_chain);
	debugfs_create_u32("max_rules", 0600, dir, &hw->max_rules);
	debugfs_create_u32("delay_ms", 0600, dir, &hw->delay_ms);
	debugfs_create_atomic_t("refuse_nth", 0600, dir, &hw->refuse_nth);
	debugfs_create_file("refuse_keys", 0200, dir, nic, &refuse_keys_fops);
	debugfs_create_file("refuse_actions", 0200, dir, nic, &refuse_actions_fops);
	debugfs_create_file("rules", 0400, dir, nic, &rules_fops);
	debugfs_create_file_unsafe("forget", 0200, dir, nic, &forget_fops);
	debugfs_create_file_unsafe("count", 0200, dir, nic, &count_fops);
	debugfs_create_file_unsafe("tunnels", 0600, dir, nic, &tunnels_fops);
	nic->debugfs = dir;
}
