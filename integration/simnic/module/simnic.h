/* SPDX-License-Identifier: GPL-2.0 */
/*
 * simnic: a NIC with an embedded switch that is only software. For tests.
 *
 * Words: an end is a netdev of ours, and two ends are a link, what is sent into one is received at the other. The link of
 * a vport is between its representor and its function; that of the uplink is between the uplink's netdev and the wire.
 *
 * Locks, outermost first: the device lock of the NIC (sriov_numvfs, probe, remove), the devlink instance's, the device lock of a
 * function, RTNL, the mutex of the rules.
 */
#ifndef SIMNIC_H
#define SIMNIC_H

#include <linux/atomic.h>
#include <linux/auxiliary_bus.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/etherdevice.h>
#include <linux/hashtable.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/workqueue.h>
#include <net/devlink.h>
#include <net/flow_offload.h>

#define SIMNIC_MAX_VFS 128
#define SIMNIC_MAX_SFS 512
#define SIMNIC_MAX_MTU 9978

/* Port indexes: 0xffff is the uplink, as in mlx5; VF n has n + 1, and SFs count from here. */
#define SIMNIC_PORT_UPLINK 0xffff
#define SIMNIC_PORT_VF(n) ((n) + 1)
#define SIMNIC_PORT_SF(slot) (0x8000 + (slot))

enum simnic_kind { SIMNIC_UPLINK, SIMNIC_VF, SIMNIC_SF };

/* The ends of a link. The uplink's netdev is its representor and the wire its function. */
struct simnic_rdma;

enum simnic_side { SIMNIC_REPRESENTOR, SIMNIC_FUNCTION, SIMNIC_SIDES };

/* What the uplink's netdev keeps of a VF: ip link set UPLINK vf N. Nothing comes of it. Under RTNL. */
struct simnic_vf_config {
	u16 vlan;
	u8 qos;
	__be16 vlan_proto;
	bool spoofchk, trust;
	int link_state;			/* IFLA_VF_LINK_STATE_* */
	u32 min_rate, max_rate;		/* Mbit/s */
};

struct simnic_vport {
	struct simnic *nic;
	enum simnic_kind kind;
	u32 number;			/* of the VF or SF */
	unsigned int index;		/* of the devlink port */
	struct devlink_port port;	/* while there is a representor */

	spinlock_t lock;		/* hw_addr */
	u8 hw_addr[ETH_ALEN];		/* zero: the function takes a random one */

	struct net_device __rcu *end[SIMNIC_SIDES];	/* written under RTNL */
	struct simnic_vf_config config;			/* of a VF */
	struct simnic_rdma *rdma;	/* of a function; NULL: none */
};

/* What a netdev has as its private data. */
struct simnic_end {
	struct simnic_vport *vport;
	enum simnic_side side;
};

struct simnic_vf {
	struct device dev;
	struct simnic_vport vport;
};

struct simnic_sf_dev;

struct simnic_sf {
	struct list_head list;		/* of the NIC */
	struct simnic_vport vport;
	int slot;
	enum devlink_port_fn_state state;
	struct delayed_work attach;
	struct simnic_sf_dev *dev;	/* written by attach, or when that cannot run */
};

/* Counters in debugfs: so many of the coming calls fail. */
enum simnic_failure {
	SIMNIC_FAIL_PORT_NEW,
	SIMNIC_FAIL_PORT_DEL,
	SIMNIC_FAIL_HW_ADDR_SET,
	SIMNIC_FAIL_STATE_SET,
	SIMNIC_FAIL_ESWITCH_SET,
	SIMNIC_FAIL_NETDEV,
	SIMNIC_FAILURES
};

/* What the hardware can and does with filters; plain values, read where they are used. */
struct simnic_flower {
	bool accept_all;		/* no validation */
	bool ct;			/* connection tracking */
	bool ct_new;			/* ct_state +new, as in 6.3 and later */
	bool ttl;
	u32 max_chain;
	u32 max_rules;			/* of the NIC; 0: any number */
	u32 delay_ms;			/* of each insertion */
	atomic_t refuse_nth;		/* counts insertions down, that which makes it 0 is refused */
	u64 refuse_keys;		/* bits are FLOW_DISSECTOR_KEY_* */
	u64 refuse_actions;		/* bits are FLOW_ACTION_* */
};

struct simnic {
	struct device *dev;
	unsigned int id;
	u16 mode;			/* enum devlink_eswitch_mode */
	u8 inline_mode;
	enum devlink_eswitch_encap_mode encap_mode;
	struct netdev_phys_item_id switch_id;
	bool up;			/* there is an uplink */

	struct simnic_vport uplink;
	struct simnic_vf *vfs[SIMNIC_MAX_VFS];
	unsigned int num_vfs;
	bool autoprobe;			/* of VFs by drivers */
	struct list_head sfs;
	struct ida sf_slots;

	struct dentry *debugfs;
	atomic_t fail[SIMNIC_FAILURES];
	u32 sf_delay_ms;
	bool vf_config;			/* VLAN, trust and spoof check of VFs can be set */
	bool rdma;			/* functions get an RDMA device when their drivers are bound */
	struct simnic_flower flower;

	struct mutex rules_lock;	/* rules, num_rules, tunnels, option_* */
	DECLARE_HASHTABLE(rules, 12);
	unsigned int num_rules;
	struct list_head tunnels;	/* bindings of tunnel devices */
	bool indirect;			/* we take them; under the devlink instance's lock */
	__be16 option_class;		/* the Geneve option that is matched on, while it has users */
	u8 option_type;
	unsigned int option_users;
};

/* bus.c */
extern struct dentry *simnic_debugfs;
int simnic_vfs_set(struct simnic *nic, unsigned int n);

/* debugfs.c */
void simnic_debugfs_add(struct simnic *nic);
bool simnic_fails(struct simnic *nic, enum simnic_failure what);

/* end.c */
void simnic_vport_init(struct simnic_vport *vport, struct simnic *nic, enum simnic_kind kind, u32 number, unsigned int index);
int simnic_end_add(struct simnic_vport *vport, enum simnic_side side, struct device *parent);
void simnic_end_del(struct simnic_vport *vport, enum simnic_side side);
/* simnic_vport_of returns the vport that a netdev is the representor of, NULL if it is none. */
struct simnic_vport *simnic_vport_of(const struct net_device *dev);

/* eswitch.c */
struct simnic *simnic_alloc(struct device *dev, unsigned int id);
int simnic_start(struct simnic *nic);
void simnic_stop(struct simnic *nic);
int simnic_representor_add(struct simnic_vport *vport);
void simnic_representor_del(struct simnic_vport *vport);
int simnic_reset(struct simnic *nic);

/* function.c */
extern struct auxiliary_driver simnic_sf_driver;
int simnic_function_add(struct simnic_vport *vport, struct device *dev);
void simnic_function_del(struct simnic_vport *vport);
int simnic_sf_new(struct simnic *nic, u32 sfnum, struct netlink_ext_ack *extack, struct simnic_sf **new);
void simnic_sf_del(struct simnic_sf *sf);
void simnic_sf_activate(struct simnic_sf *sf);
void simnic_sf_deactivate(struct simnic_sf *sf);

/* flower.c */
int simnic_setup_tc(struct net_device *dev, enum tc_setup_type type, void *type_data);
int simnic_indirect_set(struct simnic *nic, bool on);
bool simnic_has_rules(struct net_device *dev);
void simnic_forget(struct simnic *nic);
void simnic_count(struct simnic *nic, u64 n);
int simnic_rules_show(struct seq_file *s, struct simnic *nic);

/* rdma.c */
int simnic_rdma_add(struct simnic_vport *vport, struct device *parent);
void simnic_rdma_del(struct simnic_vport *vport);

/* validate.c */
struct geneve_opt;
int simnic_validate(struct simnic *nic, struct simnic_vport *from, struct net_device *dev, struct flow_cls_offload *f,
		    const struct geneve_opt **option);

#endif
