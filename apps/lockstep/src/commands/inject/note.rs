//! What a user has to do beside applying the output.

use super::check::Found;
use super::parts::QUIC_PORT;

/// Steps for people, in their order.
pub(super) fn note(found: &Found) -> String {
    let Found { name, cluster, secret_prefix: prefix, replicas, port, .. } = found;
    let (first, last) = (found.start, found.ids().end.saturating_sub(1));
    let service = found.service();
    let domain = format!("{service}.{}.svc:{QUIC_PORT}", found.namespace.as_deref().unwrap_or("NAMESPACE"));
    let seeds: Vec<String> = found.ids().map(|id| format!("{id}={name}-{id}.{domain}")).collect();
    let pods: Vec<String> = found.ids().map(|id| format!("{name}-{id}")).collect();
    let (seeds, pods) = (seeds.join(","), pods.join(" "));
    let survives = match (replicas - 1) / 2 {
        0 => "it survives the loss of none".to_owned(),
        lost => format!("it survives the loss of {lost}"),
    };
    let kubectl = match &found.namespace {
        Some(namespace) => format!("kubectl -n {namespace}"),
        None => "kubectl".to_owned(),
    };
    let former = match &found.governing {
        Some(governing) if *governing != service => format!(
            "   A pod is now {name}-{first}.{service}: it has a name in one Service only, and in {governing} it would have \
             none before it is ready.\n"
        ),
        _ => String::new(),
    };
    format!(
        "StatefulSet {name} becomes cluster {cluster}; with replicas: {replicas} {survives}. What is left to do:\n\
         1. Certificates: the Secrets {prefix}-server-{first} to {prefix}-server-{last} (lockstep certs secret prints them \
         for cluster {cluster}); the pods wait for theirs.\n\
         2. A StatefulSet that exists cannot become this one, for podManagementPolicy, serviceName and \
         volumeClaimTemplates are immutable.\n   \
         Make it anew; the old pods serve until they are deleted, all at once, for the new ones become ready together:\n     \
         {kubectl} delete statefulset {name} --cascade=orphan\n     \
         {kubectl} apply -f OUTPUT\n     \
         {kubectl} delete pod {pods}\n   \
         The application begins empty: what is to be kept is written again by its clients.\n\
         3. The first start, once, from a pod with the certificate admin/0; it is safe to repeat:\n     \
         lockstep bootstrap --cluster {cluster} --id 0 --pki /pki --expect {replicas} --seeds {seeds}\n\
         4. Clients come in through a SMaRtClient (lockstep smart-client, with the same addresses as --servers) and an \
         ingress.\n   \
         Whoever reaches port {port} of a pod directly, as through a Service that selects the pods, is not replicated and \
         makes the copies differ.\n\
         {former}"
    )
}
