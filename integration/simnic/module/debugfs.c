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

/* What is written is n; any n does it. */
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

void simnic_debugfs_add(struct simnic *nic)
{
	int i;

	nic->debugfs = debugfs_create_dir(dev_name(nic->dev), simnic_debugfs);
	for (i = 0; i < SIMNIC_FAILURES; i++)
		debugfs_create_atomic_t(failures[i], 0600, nic->debugfs, &nic->fail[i]);
	debugfs_create_u32("sf_delay_ms", 0600, nic->debugfs, &nic->sf_delay_ms);
	debugfs_create_file_unsafe("reset", 0200, nic->debugfs, nic, &reset_fops);
}
