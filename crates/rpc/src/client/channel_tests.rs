use super::*;

#[tokio::test]
async fn addresses_are_checked_before_the_first_call() {
    let make =
        |url: &str| RpcChannel::to_service(&PeerConfig::at(url), "registry", None).map(|_| ());
    assert!(make("http://127.0.0.1:7001").is_ok());
    assert!(make("http://[::1]:7001").is_ok());
    assert!(make("http://localhost:7001").is_ok());
    assert!(matches!(make("http://10.0.0.1:7001"), Err(ChannelError::PlainRemote(_))));
    assert!(matches!(make("http://localhost.evil.example:1"), Err(ChannelError::PlainRemote(_))));
    assert!(matches!(make("https://10.0.0.1:7001"), Err(ChannelError::TlsMissing(_))));
    for odd in ["", "10.0.0.1:7001", "/x", "ftp://localhost"] {
        assert!(matches!(make(odd), Err(ChannelError::Address(_))), "{odd:?}");
    }
}
