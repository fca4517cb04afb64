#!/usr/bin/env bash
# The node, as process 1 of its namespaces: with it, everything ends. tests/support/deployment/kubernetes.py says what
# the variables are.
set -euo pipefail
exec >>"$FOLDER/log/node" 2>&1
cd "$FOLDER"

mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mount --bind "$FOLDER/var-lib" /var/lib
mkdir -p /run/netns /run/lock
# The kubelet would set these for the whole machine; it finds them set.
for each in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    mkdir -p "/run/sysctl/$(dirname "${each%=*}")"
    echo "${each#*=}" >"/run/sysctl/${each%=*}"
    mount --bind "/run/sysctl/${each%=*}" "/proc/sys/${each%=*}"
done
hostname node1
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip address add "$NODE/24" dev eth0
ip link set eth0 up
ip route add "$SERVICES" dev eth0 src "$NODE"  # for programs of the node: kube-proxy redirects them
echo 1 >/proc/sys/net/ipv4/ip_forward
# No route leaves the machine, and nobody else is asked for names.
mkdir conf cni
echo "nameserver $NODE" >conf/resolv.conf
mount --bind conf/resolv.conf /etc/resolv.conf

cat >conf/containerd.toml <<END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
disable_apparmor = true
# Without CAP_SYS_RESOURCE no process may be made less likely to be killed.
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$DEBIAN/usr/lib/cni"
conf_dir = "$FOLDER/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
END
# Not "bridge", whose packets NetworkPolicies would not see without a module of the kernel.
cat >cni/10-pods.conflist <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": false, "mtu": 1500,
 "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
cat >conf/kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failSwapOn: false
failCgroupV1: false
makeIPTablesUtilChains: false
clusterDNS: [$NODE]
clusterDomain: cluster.local
resolvConf: $FOLDER/conf/resolv.conf
evictionHard: {memory.available: 50Mi}
imageGCHighThresholdPercent: 100
# A changed Secret reaches pods within this time.
syncFrequency: 2s
configMapAndSecretChangeDetectionStrategy: Get
END
# Without clusterCIDR: a pod sees the address of a client outside of the cluster.
cat >conf/proxy.yaml <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node1
clientConnection: {kubeconfig: $KUBECONFIG}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END

etcd --data-dir etcd --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 >log/etcd 2>&1 &
containerd --config conf/containerd.toml >log/containerd 2>&1 &
kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$NODE" --cert-dir certificates \
    --token-auth-file tokens.csv --authorization-mode RBAC --allow-privileged \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file accounts.key --service-account-signing-key-file accounts.key \
    --service-cluster-ip-range "$SERVICES" --kubelet-preferred-address-types InternalIP >log/apiserver 2>&1 &
until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
kube-controller-manager --kubeconfig "$KUBECONFIG" --service-account-private-key-file accounts.key \
    --leader-elect=false --horizontal-pod-autoscaler-sync-period 2s \
    --horizontal-pod-autoscaler-downscale-stabilization 1s >log/controllers 2>&1 &
kube-scheduler --kubeconfig "$KUBECONFIG" --leader-elect=false >log/scheduler 2>&1 &
until ctr images import "$PAUSE" >log/import 2>&1; do sleep 0.2; done
kubelet --config conf/kubelet.yaml --kubeconfig "$KUBECONFIG" --node-ip "$NODE" --hostname-override node1 >log/kubelet 2>&1 &
dns "$KUBECONFIG" "$NODE:53" >log/dns 2>&1 &
export LD_LIBRARY_PATH=$DEBIAN/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=$DEBIAN/usr/lib/x86_64-linux-gnu/xtables
kube-proxy --config conf/proxy.yaml >log/proxy 2>&1 &
until kubectl get node node1 >/dev/null 2>&1; do sleep 0.2; done
policies "$KUBECONFIG" "$SERVICES" node1 >log/policies 2>&1 &
# It collects orphans, too.
while :; do
    wait -n || true
    sleep 1
done
